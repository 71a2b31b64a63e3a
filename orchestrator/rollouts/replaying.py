"""A decision in the audit log, and the same decision made again from what stands there. Pure."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from orchestrator.model.audit import AuditEntry, Problem
from orchestrator.rollouts.engine import reconcile
from orchestrator.rollouts.facts import VERSION, Decisions, Facts
from orchestrator.rollouts.plain_values import from_plain, to_plain


def record(facts: Facts, decisions: Decisions, now: datetime, lease: timedelta) -> dict[str, Any]:
    """The figures of an entry: all that the engine was given, and what it came to."""
    return {
        "version": VERSION,
        "now": to_plain(now),
        "lease_s": to_plain(lease),
        "facts": to_plain(facts),
        "decisions": to_plain(decisions),
    }


def cause_of(decisions: Decisions) -> str:
    """Why, in a sentence for people."""
    if decisions.happenings:
        return "; ".join(happening.text for happening in decisions.happenings)
    done = [f"stage {stage.name} is {stage.state}" for stage in decisions.stages]
    if decisions.offer_budget:
        done.append(f"up to {decisions.offer_budget} ready devices are offered")
    if decisions.answer is not None:
        done.append("devices that ask may activate" if decisions.answer else "devices that ask are heard, and hold")
    if decisions.renew_until is not None:
        done.append("offers that run out are renewed")
    if decisions.announce:
        done.append("the announcement is signed anew")
    if decisions.forget:
        done.append("what was acknowledged and is no failure any more is forgotten")
    return "; ".join(done) or "the engine decided"


def is_replayable(entry: AuditEntry) -> bool:
    """Whether this engine is the one that decided.

    Raises:
        ValueError: The body is no decision's.
    """
    return entry.figures().get("version") == VERSION


def facts_of(figures: Mapping[str, Any]) -> Facts:
    """What the engine was given.

    Raises:
        ValueError: There is nothing of that form.
    """
    found: Facts = from_plain(Facts, figures.get("facts"))
    return found


def check_decision(entry: AuditEntry) -> Problem | None:
    """Decide again on the entry's own facts; None when it comes to the same, or another engine decided."""
    try:
        figures = entry.figures()
        if figures.get("version") != VERSION:
            return None
        now: datetime = from_plain(datetime, figures.get("now"))
        lease: timedelta = from_plain(timedelta, figures.get("lease_s"))
        said: Decisions = from_plain(Decisions, figures.get("decisions"))
        found = reconcile(facts_of(figures), now, lease)
    except ValueError as error:
        return Problem(entry.id, f"its decision cannot be read: {error}")
    theirs, ours = to_plain(said), to_plain(found)
    differing = [name for name in ours if ours[name] != theirs[name]]
    if not differing:
        return None
    name = differing[0]
    return Problem(
        entry.id,
        f"the engine decides otherwise on the same facts: {', '.join(differing)} "
        f"({name}: the log has {str(theirs[name])[:200]}, it comes to {str(ours[name])[:200]})",
    )
