"""From rows to what dashboards read. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from orchestrator.model.assignment import PENDING, Assignment
from orchestrator.model.device import Device
from orchestrator.model.failure import TIMED_OUT
from orchestrator.model.rollout import RolloutState, Stage, StageState
from orchestrator.rollouts.engine import excluded, untouched
from orchestrator.rollouts.facts import Facts
from orchestrator.rollouts.rules import provisional
from orchestrator.rollouts.stage_moves import figures_of
from orchestrator.storage.concerns import Concern
from protocol.states import State
from protocol.status_messages import BytesMoved, DeviceStatus, FleetStatus, RolloutStatus, StageStatus

MAX_REASONS = 8
"""Per stage: devices choose the words, and one message must hold them all."""
OTHERS = "others"
DETAILED_STAGES = 24
"""Shown with counts, reasons and figures; of the others the state alone: a plan may have five hundred."""
_STATE = "state:"
_UNDER_WAY = frozenset({StageState.OPEN, StageState.SOAKING})
_HAVE_IT = (
    State.FETCHED, State.INSTALLING, State.INSTALLED, State.ACTIVATING, State.VERIFYING, State.COMMITTING,
    State.SUCCEEDED, State.ROLLING_BACK, State.ROLLED_BACK, State.INCONSISTENT,
)  # fmt: skip
"""States that no device reaches without the whole image."""


def fleet_status(
    fleet: str,
    figures: tuple[int, int, int],
    concerns: Mapping[Concern, int],
    versions: dict[str, int],
    states: dict[str, str],
    now: datetime,
    signer_trouble: str = "",
    halt: str = "",
) -> FleetStatus:
    """The whole fleet.

    Args:
        figures: (enrolled, online, revoked).
        states: State by rollout id.
        signer_trouble: What keeps the signer from signing; "" for nothing.
        halt: Why the whole fleet is halted; "" where it is not.
    """
    enrolled, online, revoked = figures
    return FleetStatus(
        at=now,
        fleet=fleet,
        devices=enrolled,
        online=online,
        revoked=revoked,
        silent=concerns[Concern.SILENT],
        stale=concerns[Concern.STALE],
        duplicate=concerns[Concern.DUPLICATE],
        versions=versions,
        rollouts=states,
        halted=bool(halt) or RolloutState.HALTED in states.values(),
        halt=halt[:500] or None,
        signer=signer_trouble[:500] or None,
    )


def rollout_status(
    facts: Facts, reasons: Mapping[int, dict[str, int]], now: datetime, image_bytes: int = 0
) -> RolloutStatus:
    """One rollout with its stages, rule figures, bytes and what keeps devices waiting."""
    figures = figures_of(facts)
    members = sum(stage.members for stage in facts.stages)
    stages, detailed = [], _detailed(facts.stages)
    for stage in facts.stages:
        counts = facts.counts.get(stage.position, {})
        if stage.position not in detailed:
            offered = counts.get("offered", 0)
            stages.append(StageStatus(name=stage.name, state=stage.state, members=stage.members, offered=offered))
            continue
        stages.append(
            StageStatus(
                name=stage.name,
                state=stage.state,
                members=stage.members,
                offered=counts.get("offered", 0),
                counts={key.removeprefix(_STATE): n for key, n in sorted(counts.items()) if key.startswith(_STATE)},
                reasons=_most_frequent(reasons.get(stage.position, {})),
                figures=[figure for position, figure in figures if position == stage.position],
                moved=_moved([counts], stage.members, image_bytes) if stage.state in _UNDER_WAY else None,
            )
        )
    return RolloutStatus(
        at=now,
        id=facts.rollout.id,
        release=facts.rollout.release,
        state=facts.rollout.state,
        reason=facts.rollout.reason,
        members=members,
        succeeded=_sum(facts, State.SUCCEEDED),
        failed=sum(_sum(facts, state) for state in (State.FAILED, State.REJECTED, State.INCONSISTENT, TIMED_OUT))
        + sum(provisional(counts) for counts in facts.counts.values()),
        rolled_back=_sum(facts, State.ROLLED_BACK),
        untouched=untouched(facts.counts, members),
        excluded=sum(excluded(counts) for counts in facts.counts.values()),
        stages=stages,
        moved=_moved(list(facts.counts.values()), members, image_bytes),
    )


def _detailed(stages: Sequence[Stage]) -> range:
    """Positions of the stages that are shown whole: the ones around that which is under way."""
    if len(stages) <= DETAILED_STAGES:
        return range(len(stages))
    under_way = next((s.position for s in stages if s.state is not StageState.PASSED), len(stages) - 1)
    first = min(max(0, under_way - DETAILED_STAGES // 2), len(stages) - DETAILED_STAGES)
    return range(first, first + DETAILED_STAGES)


def device_status(device: Device, newest: Assignment | None, now: datetime) -> DeviceStatus:
    """One device, with its assignment that moved last."""
    alone = DeviceStatus(
        at=now,
        id=device.id,
        online=device.online,
        components=device.components,
        membership=device.state,
        silent_since=device.silent_since,
        stale_since=device.stale_since,
        duplicate_since=device.duplicate_since,
    )
    if newest is None:
        return alone
    return DeviceStatus(
        **alone.model_dump(exclude_unset=True),
        rollout=newest.rollout,
        state=newest.state,
        code=newest.code or "",
        detail=newest.detail,
        percent=newest.percent,
        bytes_fetched=newest.bytes_fetched,
        bytes_copied=newest.bytes_copied or None,
        bytes_delta=newest.bytes_delta or None,
        bytes_present=newest.bytes_present or None,
        bytes_total=newest.bytes_total or None,
        rate_bytes_s=newest.rate_bytes_s or None,
        resumed=newest.resumed,
        reasons=[_reason(reason) for reason in newest.reasons],
        ready=newest.ready if newest.state == PENDING else None,
    )


def _moved(counts: Sequence[Mapping[str, int]], members: int, image_bytes: int) -> BytesMoved:
    """Hints of progress may be lost, or never come from a device without a link: its state says the same."""
    expected = members * image_bytes
    whole = image_bytes * sum(stage.get(f"{_STATE}{state}", 0) for stage in counts for state in _HAVE_IT)
    fetched, delta, copied, present = (
        sum(stage.get(f"bytes:{way}", 0) for stage in counts) for way in ("fetched", "delta", "copied", "present")
    )
    return BytesMoved(
        fetched=fetched, delta=delta, copied=copied, present=min(max(present, whole), expected), expected=expected
    )


def _most_frequent(reasons: Mapping[str, int]) -> dict[str, int]:
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(n for _, n in ordered[MAX_REASONS:])
    return dict(ordered[:MAX_REASONS]) | ({OTHERS: rest} if rest else {})


def _reason(reason: Mapping[str, object]) -> str:
    text = f"{reason.get('gate', '')}: {reason.get('code', '')}"
    return f"{text}, {reason['detail']}" if reason.get("detail") else text


def _sum(facts: Facts, state: str) -> int:
    return sum(counts.get(f"{_STATE}{state}", 0) for counts in facts.counts.values())
