"""What the API shows: plain JSON, no key, no token."""

import json
from datetime import UTC, datetime

from orchestrator.model.assignment import Assignment
from orchestrator.model.device import Device
from orchestrator.model.plan import RolloutSpec, StageSpec
from orchestrator.model.rollout import Rollout, RolloutState, Stage, StageState
from orchestrator.web.views import device_view, event_view, rollout_view, update_view, whole_rollout_view

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SPEC = RolloutSpec(release="gateway/1.1.0", stages=[StageSpec(name="all", percent=100)], halt_count=3)
ROLLOUT = Rollout(id="r-1", release="gateway/1.1.0", state=RolloutState.HALTED, spec=SPEC, created_at=NOW, reason="why")


def test_an_update_shows_nothing_that_answers_for_the_device() -> None:
    """Nonces and digests are what grants and ``heard`` are bound to: they stay inside."""
    row = Assignment(
        rollout="r-1", device="d1", stage=0, place=0.5, nonce="nonce-secret", grant_nonce="grant-secret",
        outcome_digest="digest-secret", updated_at=NOW, log="tail",
    )  # fmt: skip
    shown = update_view(row)
    assert "secret" not in json.dumps(shown)
    assert (shown["updated_at"], shown["log"]) == ("2026-11-24T12:00:00Z", "tail")


def test_times_are_text_and_everything_is_json() -> None:
    """RFC 3339 in UTC; what has not happened is null."""
    device = device_view(Device(id="d1", product="gateway", hardware="hw", enrolled_at=NOW))
    stage = Stage(rollout="r-1", position=0, name="all", state=StageState.OPEN, members=3, opened_at=NOW)
    whole = whole_rollout_view(ROLLOUT, [stage])
    event = event_view({"id": 1, "at": NOW, "text": "x"})
    assert json.loads(json.dumps([device, whole, event]))
    assert (device["enrolled_at"], event["at"]) == ("2026-11-24T12:00:00Z",) * 2
    assert whole["stages"] == [
        {"name": "all", "state": "open", "members": 3, "opened_at": "2026-11-24T12:00:00Z", "soaking_since": None,
         "passed_at": None}
    ]  # fmt: skip


def test_a_plan_is_shown_as_it_can_be_given_again() -> None:
    """``spec`` makes the same rollout; a list shows where it stands without it."""
    assert RolloutSpec.model_validate(whole_rollout_view(ROLLOUT, [])["spec"]) == SPEC
    assert rollout_view(ROLLOUT)["reason"] == "why"
    assert "spec" not in rollout_view(ROLLOUT)
