"""Why a device is where it is, in sentences, from what is stored. Pure: the caller brings the rows and the time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from orchestrator.model.assignment import (
    BY_PREEMPTION,
    BY_RETRY,
    BY_ROLLOUT,
    BY_SCOPE,
    BY_SITE,
    OFFERED,
    PENDING,
    Assignment,
)
from orchestrator.model.device import Device, DeviceState, Dropped
from orchestrator.model.rollout import BEGUN, Rollout, RolloutState, Stage, StageState
from protocol.clock import rfc3339
from protocol.directives import SUPERSEDED
from protocol.states import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One rollout as it concerns a device.

    Attributes:
        assignment: None where the device takes no part; ``why_not`` says why.
        rules: By position of a stage, what its success rule says now; of stages that have begun.
    """

    rollout: Rollout
    stages: Sequence[Stage]
    assignment: Assignment | None
    why_not: str = ""
    rules: Mapping[int, str] = field(default_factory=dict)


def explain(
    device: Device, places: Sequence[Place], dropped: Dropped | None = None, *, fleet_halt: str = ""
) -> list[str]:
    """Sentences, the most general first: what the device is, what it refuses, where it stands in each rollout.

    Args:
        dropped: What came in its name and was not taken in.
        fleet_halt: By whom and why the whole fleet is halted; "" where it is not.
    """
    lines = [*_about(device), *_refusals(device), *(_dropped(dropped) if dropped else ())]
    if fleet_halt:
        lines.append(f"The whole fleet is halted {fleet_halt}: nothing is offered or granted to any device.")
    return [*lines, *(line for place in places for line in _place(place))]


def _about(device: Device) -> Iterator[str]:
    runs = ", ".join(f"{name} {version}" for name, version in sorted(device.components.items())) or "nothing known"
    yield f"{device.id} is {device.product} on {device.hardware} and runs {runs}."
    if device.state == DeviceState.REVOKED:
        yield f"It was revoked{_why(device)}: it gets no offer, no key, and what it says is not heard."
    elif device.state == DeviceState.RETIRED:
        yield f"It was retired{_why(device)}: it takes no part any more."
    if device.state != DeviceState.ENROLLED and device.session_ended_at is None:
        yield "That the broker refuses its certificates and ended its session was not seen yet; it is tried again."
    if device.duplicate_since is not None:
        yield (
            f"Two live devices speak under this id since {rfc3339(device.duplicate_since)}: it is offered nothing "
            "until one of them is gone and 'flagship device clear-duplicate' was said."
        )
    if device.silent_since is not None:
        yield f"It is silent: nothing that it signed was heard since {rfc3339(device.silent_since)}."
    if device.last_seen is None:
        yield "It was never heard of since it was enrolled."
    else:
        link = "connected" if device.online else "not connected"
        yield f"It is {link}; it was heard last at {rfc3339(device.last_seen)}."
    if device.stale_since is not None:
        yield (
            f"Its trust metadata ran out at {rfc3339(device.stale_since)}: it may be cut off from the fleet, "
            "and takes nothing until it gets newer."
        )


def _why(device: Device) -> str:
    return f" ({device.closed_reason})" if device.closed_reason else ""


def _refusals(device: Device) -> Iterator[str]:
    for refusal in device.refusals:
        times = "once" if refusal["count"] == 1 else f"{refusal['count']} times"
        yield f"It refused what came with {refusal['code']}, {times}, last at {refusal['last']}: {refusal['detail']}."


def _dropped(dropped: Dropped) -> Iterator[str]:
    reports = "one report was" if dropped.count == 1 else f"{dropped.count} reports were"
    detail = f": {dropped.detail}" if dropped.detail else ""
    yield (
        f"In its name {reports} dropped since serve was started, the last at {rfc3339(dropped.last)} "
        f"with {dropped.reason}{detail}."
    )


def _place(place: Place) -> Iterator[str]:
    rollout, row = place.rollout, place.assignment
    name = f"Rollout {rollout.id} of {rollout.release} ({rollout.state})"
    if row is None:
        yield f"{name}: it is no member: {place.why_not or 'it was not chosen when the rollout was started'}."
        return
    yield f"{name}: {_where(row, place)}."
    if row.attempt > 1 or row.retried:
        tries = ", ".join(f"{times} after {kind}" for kind, times in sorted(row.retried.items()))
        yield f"{name}: this is attempt {row.attempt}{f'; it was tried again by itself: {tries}' if tries else ''}."
    for reason in row.reasons:
        yield f"{name}: not ready: {_reason(reason, row.updated_at)}."
    if row.state in (State.ROLLED_BACK, State.INCONSISTENT):
        yield (
            f"{name}: quarantined since {_at(row.updated_at)}: it is not offered {rollout.release} again unless "
            f"'flagship rollout retry {rollout.id} --device {row.device}' is said."
        )


def _where(row: Assignment, place: Place) -> str:
    rollout, stage = place.rollout, _stage_of(place, row.stage)
    named = f"stage {stage.name}" if stage else "its stage"
    since = f" since {rfc3339(row.updated_at)}" if row.updated_at else ""
    code = f" with {row.code}" if row.code else ""
    detail = f": {row.detail}" if row.detail else ""
    if row.verdict:
        at_it = f"in {named}, {row.state} since {_at(row.work_since)}"
        return f"{at_it}; it counts as {row.verdict} until it says what became of it"
    if not row.settled:
        return f"{row.state}{code}{since}{detail}; whether it is tried again is being judged"
    if row.is_terminal:
        return f"{row.state}{code}{since}{detail}"
    if row.state == PENDING:
        return _why_not_offered(row, place, stage, named)
    if row.state == OFFERED:
        return f"in {named}, offered at {_at(row.offered_at)}, and has not answered yet{_held(rollout)}"
    if row.held_by.startswith(BY_SCOPE):
        scope = row.held_by.removeprefix(BY_SCOPE)
        return f"in {named}, fetched and ready to install, and waits: as many devices of {scope} as may are unavailable"
    if row.held_by == BY_PREEMPTION or row.close_reason.startswith(SUPERSEDED):
        return f"in {named}, {row.state}{since}, {row.close_reason}; it has not given it up yet"
    if row.asking:
        return f"in {named}, {row.state}, asks for the grant to install{_held(rollout)}"
    if row.grant == "activate" and not row.is_changing:
        return f"in {named}, {row.state}, may install since it was granted; the grant ends at {_at(row.grant_until)}"
    so_far = f", {row.percent:.0f} % have come" if row.state == State.DOWNLOADING else ""
    return f"in {named}, {row.state}{since}{so_far}{code}{detail}{_held(rollout)}"


def _stage_of(place: Place, position: int) -> Stage | None:
    return next((stage for stage in place.stages if stage.position == position), None)


def _why_not_offered(row: Assignment, place: Place, stage: Stage | None, named: str) -> str:
    rollout = place.rollout
    if rollout.state is RolloutState.SCHEDULED:
        at = f" at {rfc3339(rollout.spec.start_at)}" if rollout.spec.start_at else ""
        return f"in {named}, waits for the scheduled start{at}"
    if rollout.state is not RolloutState.RUNNING:
        return f"in {named}, not offered{_held(rollout)}"
    if row.held_by == BY_RETRY:
        what = f"{row.code} {row.detail}".strip() if row.code else row.detail
        return f"in {named}, failed ({what or row.close_reason}) and will be offered again at {_at(row.not_before)}"
    if stage is not None and stage.state not in BEGUN:
        before = next((s for s in place.stages if s.state is not StageState.PASSED), stage)
        why = "the next to open" if before is stage else f"which waits for {_under_way(place)}"
        return f"waits for {named}, {why}"
    if row.held_by.startswith(BY_ROLLOUT):
        other = row.held_by.removeprefix(BY_ROLLOUT)
        return f"in {named}, ready, and waits until rollout {other} is done with it"
    if row.held_by == BY_SITE:
        at = _at(row.not_before)
        return f"in {named}, ready; the bytes of its site {row.site or '(none)'} are spent for this hour, until {at}"
    if row.ready:
        return f"in {named}, ready, and waits for its turn by the rollout's pace"
    if row.reasons:
        return f"in {named}, which is open, and is not ready"
    return f"in {named}, which is open, and has not said yet that it is ready"


def _under_way(place: Place) -> str:
    """What the stage before the next one waits for."""
    for stage in place.stages:
        if stage.state is StageState.PASSED:
            continue
        rule = place.rules.get(stage.position, "")
        match stage.state:
            case StageState.AWAITING_APPROVAL:
                return f"stage {stage.name}: it met its rule, and a person opens the next one"
            case StageState.SOAKING:
                return f"stage {stage.name}, which soaks since {_at(stage.soaking_since)} ({rule})"
            case _:
                return rule or f"stage {stage.name}"
    return "the stages before it"


def _at(at: datetime | None) -> str:
    return rfc3339(at) if at else "-"


def _held(rollout: Rollout) -> str:
    match rollout.state:
        case RolloutState.HALTED:
            return f"; the rollout is halted: {rollout.reason or 'by a person'}"
        case RolloutState.PAUSED:
            return "; the rollout is paused"
        case RolloutState.ABORTED:
            return "; the rollout was aborted"
        case _:
            return ""


def _reason(reason: Mapping[str, Any], said_at: datetime | None) -> str:
    detail = f": {reason['detail']}" if reason.get("detail") else ""
    wait_s = float(reason.get("retry_after_s") or 0)
    if not wait_s:
        return f"{reason['gate']} ({reason['code']}){detail}"
    again = f"at {rfc3339(said_at + timedelta(seconds=wait_s))}" if said_at else f"in {wait_s:.0f} s"
    return f"{reason['gate']} ({reason['code']}){detail}; it will ask again {again}"
