"""Why a device is where it is: each case has its own sentence, and none hides what the device refused."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.fleet.explaining import Place, explain
from orchestrator.model.assignment import Assignment
from orchestrator.model.device import Device, DeviceState, Dropped
from orchestrator.model.plan import RolloutSpec, StageSpec
from orchestrator.model.rollout import Rollout, RolloutState, Stage, StageState

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
DEVICE = Device(id="d1", product="gateway", hardware="rev-a", components={"app": "1.0.0"}, online=True, last_seen=NOON)
SPEC = RolloutSpec(release="gateway/1.1.0", stages=[StageSpec(name="all", percent=100)])
ROW = Assignment(rollout="r-1", device="d1", stage=0, place=0.5)
LOW = {
    "gate": "power",
    "code": "battery_low",
    "detail": "battery at 31 %; at least 40 % is needed",
    "retry_after_s": 60,
}


def place(state: RolloutState, stage: StageState, row: Assignment | None, reason: str = "") -> Place:
    """A rollout of one stage."""
    rollout = Rollout(id="r-1", release=SPEC.release, state=state, spec=SPEC, created_at=NOON, reason=reason)
    return Place(rollout=rollout, stages=[Stage(rollout="r-1", position=0, name="canary", state=stage)], assignment=row)


def said(found: Place, device: Device = DEVICE) -> str:
    """Everything, in one line."""
    return " ".join(explain(device, [found]))


@pytest.mark.parametrize(
    ("state", "stage", "changes", "words"),
    [
        (RolloutState.RUNNING, StageState.PENDING, {}, "waits for stage canary, the next to open"),
        (RolloutState.RUNNING, StageState.OPEN, {}, "has not said yet that it is ready"),
        (RolloutState.RUNNING, StageState.OPEN, {"ready": True}, "waits for its turn by the rollout's pace"),
        (RolloutState.RUNNING, StageState.OPEN, {"reasons": [LOW]}, "not ready: power (battery_low): battery at 31 %"),
        (RolloutState.RUNNING, StageState.OPEN, {"reasons": [LOW]}, "it will ask again in 60 s"),
        (
            RolloutState.RUNNING,
            StageState.OPEN,
            {"reasons": [LOW], "updated_at": NOON},
            "ask again at 2026-11-25T12:01",
        ),
        (RolloutState.RUNNING, StageState.OPEN, {"ready": True, "held_by": "rollout:r-9"}, "until rollout r-9 is done"),
        (
            RolloutState.RUNNING,
            StageState.OPEN,
            {"ready": True, "held_by": "site", "site": "lab", "not_before": NOON},
            "the bytes of its site lab are spent for this hour, until 2026-11-25T12:00:00Z",
        ),
        (
            RolloutState.RUNNING,
            StageState.OPEN,
            {"ready": True, "held_by": "retry", "code": "E_SLOW", "not_before": NOON, "retried": {"download": 2}},
            "failed (E_SLOW) and will be offered again at 2026-11-25T12:00:00Z",
        ),
        (
            RolloutState.RUNNING,
            StageState.OPEN,
            {"ready": True, "held_by": "retry", "attempt": 2, "retried": {"download": 2}},
            "this is attempt 2; it was tried again by itself: 2 after download",
        ),
        (
            RolloutState.RUNNING,
            StageState.OPEN,
            {"state": "fetched", "asking": True, "held_by": "scope:site=lab"},
            "as many devices of site=lab as may are unavailable",
        ),
        (
            RolloutState.RUNNING,
            StageState.OPEN,
            {"state": "verifying", "verdict": "silent_after_activation", "work_since": NOON},
            "verifying since 2026-11-25T12:00:00Z; it counts as silent_after_activation until it says",
        ),
        (
            RolloutState.RUNNING,
            StageState.OPEN,
            {"state": "rolled_back", "code": "E_HEALTH", "updated_at": NOON},
            "quarantined since 2026-11-25T12:00:00Z: it is not offered gateway/1.1.0 again unless",
        ),
        (RolloutState.RUNNING, StageState.OPEN, {"state": "failed", "settled": False}, "tried again is being judged"),
        (
            RolloutState.RUNNING,
            StageState.OPEN,
            {"state": "fetched", "grant": "activate", "grant_until": NOON},
            "may install since it was granted; the grant ends at 2026-11-25T12:00:00Z",
        ),
        (
            RolloutState.RUNNING,
            StageState.OPEN,
            {"state": "downloading", "close_reason": "superseded by rollout r-2"},
            "superseded by rollout r-2; it has not given it up yet",
        ),
        (RolloutState.SCHEDULED, StageState.PENDING, {}, "waits for the scheduled start"),
        (RolloutState.PAUSED, StageState.OPEN, {"ready": True}, "the rollout is paused"),
        (RolloutState.HALTED, StageState.OPEN, {"ready": True}, "the rollout is halted: 2 of 2 failed"),
        (RolloutState.ABORTED, StageState.OPEN, {}, "the rollout was aborted"),
        (RolloutState.RUNNING, StageState.OPEN, {"state": "offered", "offered_at": NOON}, "offered at 2026-11-25T12"),
        (
            RolloutState.RUNNING,
            StageState.OPEN,
            {"state": "downloading", "percent": 42.4},
            "downloading, 42 % have come",
        ),
        (
            RolloutState.RUNNING,
            StageState.OPEN,
            {"state": "rejected", "code": "E_MISMATCH", "detail": "other bytes", "updated_at": NOON},
            "rejected with E_MISMATCH since 2026-11-25T12:00:00Z: other bytes",
        ),
    ],
)
def test_where_it_stands(state: RolloutState, stage: StageState, changes: dict[str, Any], words: str) -> None:
    """One sentence with the cause."""
    assert words in said(place(state, stage, replace(ROW, **changes), reason="2 of 2 failed"))


@pytest.mark.parametrize(
    ("dropped", "words"),
    [
        (
            Dropped("E_SIGNATURE", "not signed by it", 1, NOON),
            "one report was dropped since serve was started, the last",
        ),
        (Dropped("E_SIGNATURE", "not signed by it", 7, NOON), "7 reports were dropped"),
        (Dropped("E_SIGNATURE", "not signed by it", 7, NOON), "12:00:00Z with E_SIGNATURE: not signed by it."),
        (Dropped("E_REPLAY", "", 7, NOON), "12:00:00Z with E_REPLAY."),
    ],
)
def test_what_came_in_its_name(dropped: Dropped, words: str) -> None:
    """A forgery or a replay shows up with the device that it names."""
    assert words in " ".join(explain(DEVICE, [], dropped))


def test_who_takes_no_part_is_told_so() -> None:
    """A rollout that does not name the device says why it is not in it."""
    assert "it is no member" in said(place(RolloutState.RUNNING, StageState.OPEN, None))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": DeviceState.REVOKED}, "It was revoked"),
        ({"state": DeviceState.REVOKED, "closed_reason": "stolen"}, "It was revoked (stolen):"),
        ({"state": DeviceState.RETIRED}, "was not seen yet"),
        ({"duplicate_since": NOON}, "Two live devices speak under this id since"),
        ({"silent": True, "heard_at": NOON}, "It is silent: nothing that it signed was heard since"),
        ({"state": DeviceState.RETIRED}, "It was retired"),
        ({"last_seen": None}, "never heard of"),
        ({"online": False}, "not connected; it was heard last at 2026-11-25T12:00:00Z"),
        ({"stale_since": NOON}, "ran out at 2026-11-25T12:00:00Z: it may be cut off"),
        ({"components": {}}, "runs nothing known"),
        (
            {"refusals": [{"code": "E_SIGNATURE", "detail": "not signed", "count": 3, "last": "2026-11-25T11:00:00Z"}]},
            "refused what came with E_SIGNATURE, 3 times, last at 2026-11-25T11:00:00Z: not signed.",
        ),
    ],
)
def test_what_it_is(changes: dict[str, Any], words: str) -> None:
    """Identity, link, freshness and refusals come first, whatever the rollouts say."""
    assert words in " ".join(explain(replace(DEVICE, **changes), []))


def test_a_later_stage_names_what_it_waits_for() -> None:
    """The rule of the stage under way, with its figures; a soak and a person are named too."""
    rollout = Rollout(id="r-1", release=SPEC.release, state=RolloutState.RUNNING, spec=SPEC, created_at=NOON)
    words = "stage canary: 1 of 1 finished succeeded, expected 95% of at least 2"
    for state, expected in (
        (StageState.OPEN, f"waits for stage rest, which waits for {words}"),
        (StageState.SOAKING, "stage canary, which soaks since 2026-11-25T12:00:00Z"),
        (StageState.AWAITING_APPROVAL, "it met its rule, and a person opens the next one"),
    ):
        stages = [
            Stage(rollout="r-1", position=0, name="canary", state=state, soaking_since=NOON),
            Stage(rollout="r-1", position=1, name="rest"),
        ]
        found = Place(rollout=rollout, stages=stages, assignment=replace(ROW, stage=1), rules={0: words})
        assert expected in said(found)


def test_a_halted_fleet_is_said_first() -> None:
    """Whatever the rollout's own state is."""
    lines = explain(DEVICE, [], fleet_halt="since noon by ann (smoke)")
    assert (
        lines[-1] == "The whole fleet is halted since noon by ann (smoke): nothing is offered or granted to any device."
    )
