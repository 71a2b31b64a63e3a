"""Rollouts on the command line, from the plan to the end of watching, against a real serve and broker."""

import json
import threading
import time
from typing import Any

import pytest

from orchestrator.cli import rollout_view
from orchestrator.cli.client import ApiClient
from orchestrator.config import Home
from tests.orchestrator.cli.conftest import DEVICES, RELEASE, Run, ask
from tests.orchestrator.cli.test_main import assert_sentence


def create(run: Run, *words: str) -> Any:
    """A rollout of the release to the three devices."""
    return ask(run, "rollout", "create", "--release", RELEASE, "--selector", "site=lab", *words)


def test_the_plan_is_what_the_words_say(run: Run) -> None:
    """Every option stands in the plan, in its unit."""
    words = (
        "--stage=canary=group:canary", "--stage=mine=id=gw-2", "--stage=all=100%", "--success=90%", "--halt=0.2",
        "--min-sample=2", "--halt-min-sample=4", "--halt-count=5", "--soak=15m", "--pace=30",
        "--start-at=2099-12-01T03:00:00+01:00", "--min-battery=40", "--require-approval",
    )  # fmt: skip
    made = create(run, "words", *words)
    spec = made["spec"]
    assert (made["id"], made["state"]) == ("words", "scheduled")
    assert [(stage["name"], stage["members"]) for stage in made["stages"]] == [("canary", 1), ("mine", 1), ("all", 1)]
    assert spec["members"] == {"selector": "site=lab", "dynamic": False, "unhealthy": False}
    assert (spec["success_ratio"], spec["halt_ratio"]) == (0.9, 0.2)
    assert (spec["min_sample"], spec["halt_min_sample"], spec["halt_count"]) == (2, 4, 5)
    assert (spec["soak_s"], spec["pace_per_minute"]) == (900, 30)
    assert spec["start_at"] == "2099-12-01T03:00:00+01:00"
    assert spec["policy"] == {"min_battery_percent": 40, "require_approval": True}
    assert ask(run, "rollout", "abort", "words", "--reason", "only words")["state"] == "aborted"


def test_without_stages_everyone_is_in_one(run: Run) -> None:
    """The shortest plan: all at once."""
    made = create(run)
    assert [(stage["name"], stage["members"]) for stage in made["stages"]] == [("all", 3)]
    code, out, _ = run("rollout", "abort", made["id"])
    assert (code, out) == (0, f"rollout {made['id']}: aborted\n")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        pytest.param(["--release", "gateway/9.9"], 3, "gateway/9.9", id="unknown release"),
        pytest.param(["--release", RELEASE, "--group", "zz"], 3, "group zz", id="unknown group"),
        pytest.param(["--release", RELEASE, "--selector", "site=mars"], 5, "no member", id="nobody"),
        pytest.param(
            ["--release", RELEASE, "--stage", "a=id=zz", "--stage", "b=100%"], 5, "a is empty", id="empty stage"
        ),
        pytest.param(["--release", RELEASE, "--stage", "a=group:canary"], 5, "in no stage", id="members left over"),
    ],
)
def test_a_refused_plan_leaves_no_rollout(run: Run, words: list[str], code: int, says: str) -> None:
    """One sentence, the code of its kind, nothing half done."""
    before = [one["id"] for one in ask(run, "rollout", "list")]
    found, out, err = run("rollout", "create", *words)
    assert_sentence(err)
    assert (found, out) == (code, "")
    assert says in err
    assert [one["id"] for one in ask(run, "rollout", "list")] == before


def test_orders_out_of_place(run: Run) -> None:
    """A verb that does not apply is a conflict; an unknown rollout is not found."""
    made = create(run)["id"]
    for code, words in ((5, ["pause", made]), (5, ["resume", made]), (3, ["start", "zz"]), (3, ["show", "zz"])):
        found, _, err = run("rollout", *words)
        assert_sentence(err)
        assert found == code
    assert run("rollout", "abort", made)[0] == 0


def test_status_shows_what_dashboards_see(run: Run) -> None:
    """Stages, counts and rules come from the broker, for people and for programs."""
    made = create(run, "--stage=canary=group:canary", "--stage=all=100%")["id"]
    status = until(run, made, "draft")
    assert (status["release"], status["members"], status["untouched"]) == (RELEASE, len(DEVICES), len(DEVICES))
    assert [stage["name"] for stage in status["stages"]] == ["canary", "all"]
    code, out, _ = run("rollout", "status", made)
    assert code == 0
    assert f"{made}  {RELEASE}  draft" in out
    assert "canary" in out
    run("rollout", "abort", made)


def test_status_of_an_unknown_rollout(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3 once nothing retained came."""
    monkeypatch.setattr(rollout_view, "FIRST_S", 0.5)
    for verb in ("status", "watch"):
        code, _, err = run("rollout", verb, "zz")
        assert_sentence(err)
        assert code == 3
        assert "rollout zz" in err


def test_watching_ends_with_the_rollout(run: Run, served: Home) -> None:
    """A line of JSON per change, none twice; a halt ends it with exit code 6 and the reason."""
    made = create(run)["id"]
    until(run, made, "draft")
    orders = ApiClient(served)

    def operate() -> None:
        for verb, body in (("start", {}), ("pause", {}), ("halt", {"reason": "smoke in the lab"})):
            time.sleep(1.2)  # a person: longer than statuses are coalesced
            orders.post(f"/rollouts/{made}/{verb}", body)

    operator = threading.Thread(target=operate)
    operator.start()
    code, out, err = run("rollout", "watch", made, "--timeout", "30s", "-o", "json")
    operator.join()
    assert_sentence(err)
    assert code == 6
    assert "smoke in the lab" in err
    seen = [json.loads(line) for line in out.splitlines()]
    assert [status["state"] for status in seen] == ["draft", "running", "paused", "halted"]
    facts = [json.dumps({**status, "at": ""}) for status in seen]
    assert len(set(facts)) == len(facts)
    again, _, err = run("rollout", "watch", made)
    assert again == 6
    assert "halted" in err
    run("rollout", "abort", made)


def test_watching_gives_up_in_time(run: Run) -> None:
    """Exit code 8, and where the rollout stands."""
    made = create(run)["id"]
    until(run, made, "draft")
    code, out, err = run("rollout", "watch", made, "--timeout", "1s")
    assert_sentence(err)
    assert code == 8
    assert "still draft" in err
    assert f"{made} draft: all pending" in out
    run("rollout", "abort", made)


def until(run: Run, rollout: str, state: str) -> Any:
    """The status, once the broker shows this state."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        code, out, _ = run("rollout", "status", rollout, "-o", "json")
        if code == 0 and json.loads(out)["state"] == state:
            return json.loads(out)
    raise AssertionError(f"{rollout} did not become {state}")
