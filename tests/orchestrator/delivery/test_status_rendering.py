"""What dashboards read: counts, figures, reasons; and that one message holds them whatever devices say."""

from datetime import UTC, datetime
from typing import Any

from orchestrator.delivery.status_rendering import MAX_REASONS, OTHERS, device_status, fleet_status, rollout_status
from orchestrator.model.assignment import Assignment
from orchestrator.model.device import Device
from orchestrator.model.plan import MAX_STAGES, RolloutSpec, StageSpec
from orchestrator.model.rollout import Rollout, RolloutState, Stage, StageState
from orchestrator.rollouts.facts import Facts
from orchestrator.storage.concerns import Concern
from protocol.envelopes import encode
from protocol.states import State
from protocol.status_messages import BytesMoved
from protocol.topics import RULES, Kind

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def facts(stages: int = 2, counts: dict[int, dict[str, int]] | None = None, **changes: Any) -> Facts:
    """A rollout of stages of ten, all open."""
    shares = [
        StageSpec(name=f"s{n}" + "x" * (60 if stages > 2 else 0), percent=100 * (n + 1) / stages) for n in range(stages)
    ]
    spec = RolloutSpec(release="gateway/1.1.0", stages=shares, halt_count=3)
    values: dict[str, Any] = {"state": RolloutState.RUNNING, **changes}
    rollout = Rollout(id="r-1", release="gateway/1.1.0", spec=spec, created_at=NOW, **values)
    rows = [
        Stage(rollout="r-1", position=n, name=shares[n].name, state=StageState.OPEN, members=10, opened_at=NOW)
        for n in range(stages)
    ]
    return Facts(rollout=rollout, stages=rows, counts=counts or {})


def test_a_rollout_is_summed_over_its_stages() -> None:
    """Succeeded, rolled back, every kind of failure; untouched are those never offered."""
    counts = {
        0: {"state:succeeded": 4, "state:rolled_back": 2, "state:failed": 1, "state:rejected": 1, "offered": 8},
        1: {"state:succeeded": 1, "state:inconsistent": 1, "state:pending": 8, "offered": 2, "ready": 3},
    }
    status = rollout_status(facts(counts=counts), {1: {"power: battery_low": 5}}, NOW)
    assert (status.members, status.succeeded, status.failed, status.rolled_back) == (20, 5, 3, 2)
    assert status.untouched == 10
    assert status.stages[1].counts == {"succeeded": 1, "inconsistent": 1, "pending": 8}
    assert status.stages[1].reasons == {"power: battery_low": 5}
    assert {figure.rule for figure in status.stages[0].figures} == {"failures", "success"}
    assert "failure_count" in {figure.rule for figure in status.stages[1].figures}


def test_bytes_are_summed_for_stages_that_are_under_way() -> None:
    """Of the whole rollout always; what a stage is to bring is the image times its members."""
    moved = {"bytes:fetched": 30, "bytes:delta": 10, "bytes:copied": 50, "bytes:present": 90}
    status = rollout_status(facts(counts={0: moved, 1: moved}), {}, NOW, image_bytes=100)
    assert status.moved == BytesMoved(fetched=60, delta=20, copied=100, present=180, expected=2000)
    under_way = [stage.moved for stage in status.stages if stage.state in ("open", "soaking")]
    assert under_way == [BytesMoved(fetched=30, delta=10, copied=50, present=90, expected=1000)] * len(under_way) != []
    assert all(stage.moved is None for stage in status.stages if stage.state in ("pending", "passed"))


def test_who_has_the_whole_image_counts_though_it_never_said_how_far_it_was() -> None:
    """A device without a link says its outcome and no progress."""
    counts = {0: {"state:succeeded": 3, "state:rolled_back": 1, "state:failed": 1, "bytes:present": 10}, 1: {}}
    moved = rollout_status(facts(counts=counts), {}, NOW, image_bytes=100).moved
    assert moved is not None
    assert (moved.present, moved.expected) == (400, 2000)


def test_reasons_are_the_most_frequent_ones() -> None:
    """Devices choose the words: what is rare stands together, and nobody is lost."""
    reasons = {f"gate: code_{n:03}": n for n in range(1, 101)}
    shown = rollout_status(facts(), {0: reasons}, NOW).stages[0].reasons
    assert len(shown) == MAX_REASONS + 1
    assert next(iter(shown)) == "gate: code_100"
    assert shown[OTHERS] == sum(range(1, 101 - MAX_REASONS))
    assert sum(shown.values()) == sum(reasons.values())


def test_the_largest_rollout_fits_into_its_topic() -> None:
    """Every stage that a plan may have, as many reasons as can be, each as long as can be."""
    longest = {"g" * 40 + ": " + "c" * 37 + f"{n:03}": 10**9 for n in range(200)}
    counts = {n: {f"state:{state}": 10**9 for state in State} for n in range(MAX_STAGES)}
    status = rollout_status(facts(MAX_STAGES, counts, reason="r" * 500), dict.fromkeys(range(MAX_STAGES), longest), NOW)
    assert len(encode(status)) < RULES[Kind.STATUS_ROLLOUT].max_bytes


def test_a_device_shows_the_update_that_moved_last() -> None:
    """Gates with their detail; whether it is ready only while it was never offered."""
    device = Device(id="d1", product="gateway", hardware="rev-a", enrolled_at=NOW, components={"app": "1.0.0"})
    newest = Assignment(
        rollout="r-1", device="d1", stage=0, place=0, ready=True, percent=12.5,
        reasons=[{"gate": "power", "code": "battery_low", "detail": "12 %"}, {"gate": "disk", "code": "full"}],
    )  # fmt: skip
    status = device_status(device, newest, NOW)
    assert status.reasons == ["power: battery_low, 12 %", "disk: full"]
    assert (status.state, status.ready, status.percent) == ("pending", True, 12.5)
    assert device_status(device, None, NOW).rollout == ""
    offered = Assignment(rollout="r-1", device="d1", stage=0, place=0, state="offered", offered_at=NOW)
    assert device_status(device, offered, NOW).ready is None


def test_a_fleet_says_when_a_rollout_is_halted() -> None:
    """One is enough."""
    states = {"r-1": "completed", "r-2": "halted"}
    none = dict.fromkeys(Concern, 0)
    assert fleet_status("fleet", (9, 8, 1), none, {}, states, NOW).halted
    assert not fleet_status("fleet", (9, 8, 1), none, {}, {"r-1": "completed"}, NOW).halted


def test_a_fleet_says_who_needs_a_look() -> None:
    """Silent, stale and found twice are counted apart."""
    concerns = {Concern.SILENT: 1, Concern.STALE: 2, Concern.DUPLICATE: 3}
    status = fleet_status("fleet", (9, 8, 1), concerns, {}, {}, NOW)
    assert (status.silent, status.stale, status.duplicate) == (1, 2, 3)


def test_excluded_members_are_told_apart() -> None:
    """Summed over stages; a device's own line says whether it belongs to the fleet and what is the matter."""
    counts = {0: {"state:excluded": 1, "state:succeeded": 9}, 1: {"state:excluded": 2}}
    assert rollout_status(facts(counts=counts), {}, NOW).excluded == 3
    device = Device(id="d", product="p", hardware="h", state="revoked", duplicate_since=NOW, silent=True, heard_at=NOW)
    status = device_status(device, None, NOW)
    assert (status.membership, status.duplicate_since, status.silent_since) == ("revoked", NOW, NOW)
