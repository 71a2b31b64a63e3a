"""Why a device is where it is, in sentences, from what is stored. Pure: the caller brings the rows and the time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.model.assignment import OFFERED, PENDING, Assignment
from orchestrator.model.device import Device, DeviceState, Dropped
from orchestrator.model.rollout import BEGUN, Rollout, RolloutState, Stage
from protocol.clock import rfc3339
from protocol.states import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One rollout as it concerns a device: ``assignment`` is None where the device takes no part."""

    rollout: Rollout
    stages: Sequence[Stage]
    assignment: Assignment | None


def explain(device: Device, places: Sequence[Place], dropped: Dropped | None = None) -> list[str]:
    """Sentences, the most general first: what the device is, what it refuses, where it stands in each rollout.

    Args:
        dropped: What came in its name and was not taken in.
    """
    lines = [*_about(device), *_refusals(device), *(_dropped(dropped) if dropped else ())]
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
        yield f"{name}: it is no member; the rollout's selector or group did not name it when it was started."
        return
    stage = place.stages[row.stage] if row.stage < len(place.stages) else None
    yield f"{name}: {_where(row, rollout, stage)}."
    for reason in row.reasons:
        yield f"{name}: not ready: {_reason(reason)}."


def _where(row: Assignment, rollout: Rollout, stage: Stage | None) -> str:
    named = f"stage {stage.name}" if stage else "its stage"
    since = f" since {rfc3339(row.updated_at)}" if row.updated_at else ""
    code = f" with {row.code}" if row.code else ""
    detail = f": {row.detail}" if row.detail else ""
    if row.is_terminal:
        return f"{row.state}{code}{since}{detail}"
    if row.state == PENDING:
        return _why_not_offered(row, rollout, stage, named)
    if row.state == OFFERED:
        return f"in {named}, offered at {rfc3339(row.offered_at) if row.offered_at else '-'}, and has not answered yet"
    so_far = f", {row.percent:.0f} % have come" if row.state == State.DOWNLOADING else ""
    return f"in {named}, {row.state}{since}{so_far}{code}{detail}{_held(rollout)}"


def _why_not_offered(row: Assignment, rollout: Rollout, stage: Stage | None, named: str) -> str:
    if rollout.state is RolloutState.SCHEDULED:
        return f"in {named}, waits for the scheduled start"
    if rollout.state is not RolloutState.RUNNING:
        return f"in {named}, not offered{_held(rollout)}"
    if stage is not None and stage.state not in BEGUN:
        return f"waits for {named}, which opens when the stages before it have passed"
    if row.ready:
        return f"in {named}, ready, and waits for its turn by the rollout's pace"
    if row.reasons:
        return f"in {named}, which is open, and is not ready"
    return f"in {named}, which is open, and has not said yet that it is ready"


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


def _reason(reason: Mapping[str, Any]) -> str:
    detail = f": {reason['detail']}" if reason.get("detail") else ""
    again = f"; it asks again in {reason['retry_after_s']:.0f} s" if reason.get("retry_after_s") else ""
    return f"{reason['gate']} ({reason['code']}){detail}{again}"
