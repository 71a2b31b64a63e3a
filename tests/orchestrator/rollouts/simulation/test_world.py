"""Simulated rollouts: what the real engine comes to against modelled devices, and that the same seed repeats it."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from orchestrator.errors import ConflictError
from orchestrator.model.failure import FailureClass
from orchestrator.model.plan import RolloutSpec
from orchestrator.model.rollout import RolloutState, StageState
from orchestrator.rollouts.carrying_out import Change
from orchestrator.rollouts.simulation.habits import HOUR_S, Habits, Hours
from orchestrator.rollouts.simulation.svg import draw_svg
from orchestrator.rollouts.simulation.terminal import draw
from orchestrator.rollouts.simulation.trace import Trace
from orchestrator.rollouts.simulation.world import MONDAY, World, simulate

DAY_S = 86_400.0
STAGES = [{"name": "canary", "percent": 10, "soak_s": "1h"}, {"name": "all", "percent": 100}]
ALL = [{"name": "all", "percent": 100}]
QUIET: dict[str, Any] = {"offline": 0.0, "unready": 0.0, "lost": 0.0, "repeated": 0.0}


def run(
    devices: int = 100, seed: int = 1, habits: Habits | None = None, until_s: float = 7 * DAY_S, **plan: Any
) -> Trace:
    """A simulation of a two-stage plan."""
    spec = RolloutSpec.model_validate({"release": "cam/2.0.0", "stages": STAGES, **plan})
    return simulate(spec, devices, habits or Habits(), seed=seed, until_s=until_s)


def state(trace: Trace) -> RolloutState:
    """What became of the rollout."""
    assert trace.rollout is not None
    return trace.rollout.state


def test_the_same_seed_is_the_same_trace_and_another_is_another() -> None:
    """Every change of every device, in order; pictures too."""
    failing = Habits(failures={FailureClass.DOWNLOAD: 0.02})
    first, again, other = (run(habits=failing, seed=seed, halt_ratio=1.0, success_ratio=0.5) for seed in (1, 1, 2))
    assert first.digest == again.digest != other.digest
    assert (draw(first), draw_svg(first)) == (draw(again), draw_svg(again))
    assert state(first) is RolloutState.COMPLETED


def test_a_bad_release_halts_in_the_canary() -> None:
    """Nobody outside of the first stage hears of it."""
    trace = run(habits=Habits(failures={FailureClass.HEALTH: 1.0}))
    assert state(trace) is RolloutState.HALTED
    assert [stage.state for stage in trace.stages] == [StageState.OPEN, StageState.PENDING]
    bands = trace.samples[-1].bands
    assert 3 <= bands["failed"] <= 10 and bands["succeeded"] == 0
    assert sum(bands.values()) == 100


def test_a_device_without_a_link_is_no_failure() -> None:
    """It takes longer, and nothing fails for it."""
    slow = run(habits=Habits(offline=0.6, spell_s=8 * HOUR_S), until_s=30 * DAY_S)
    quick = run(habits=Habits(**QUIET))
    assert (state(slow), slow.samples[-1].bands["failed"]) == (RolloutState.COMPLETED, 0)
    assert slow.end_s > 2 * quick.end_s


def test_links_that_lose_and_repeat_reports_end_the_same() -> None:
    """Levels, not edges."""
    trace = run(habits=Habits(lost=0.5, repeated=0.5), until_s=30 * DAY_S)
    assert (state(trace), trace.samples[-1].bands["succeeded"]) == (RolloutState.COMPLETED, 100)


@pytest.mark.parametrize("count", [1, 3])
def test_no_more_are_unavailable_than_may(count: int) -> None:
    """At every moment, at every site; and the limit is used."""
    trace = run(200, habits=Habits(**QUIET, sites=5), max_unavailable=[{"label": "site", "count": count}])
    assert state(trace) is RolloutState.COMPLETED
    assert set(trace.most_held.values()) == {count}
    assert len(trace.most_held) == 5


def test_the_pace_holds() -> None:
    """In no minute more than it says, and a little that was saved up."""
    trace = run(300, pace_per_minute=2)
    assert state(trace) is RolloutState.COMPLETED
    assert trace.most_per_minute <= 3
    assert trace.end_s >= 300 / 2 * 60


def test_windows_are_kept_in_the_devices_own_zone() -> None:
    """They fetch before, and install at two at night, theirs."""
    night = Hours(2 * HOUR_S, 4 * HOUR_S)
    one = run(50, habits=Habits(**QUIET, window=night), stages=[{"name": "all", "percent": 100}])
    assert 2 * HOUR_S < one.end_s < 4 * HOUR_S
    west = Habits(**QUIET, window=night, zones_h=(-5.0,))
    far = run(50, habits=west, stages=[{"name": "all", "percent": 100}])
    assert 7 * HOUR_S < far.end_s < 9 * HOUR_S


def test_retries_make_up_for_bad_downloads() -> None:
    """Without them a tenth fails."""
    bad = Habits(**QUIET, failures={FailureClass.DOWNLOAD: 0.1})
    lenient: dict[str, Any] = {"halt_ratio": 1.0, "success_ratio": 0.5}
    assert run(habits=bad, **lenient).samples[-1].bands["failed"] > 2
    tried = run(habits=bad, retries={"download": {"times": 5, "backoff_s": 60}}, **lenient)
    assert tried.samples[-1].bands["failed"] == 0


def test_a_device_that_dies_counts_as_silent_and_ends_no_rollout_early() -> None:
    """The rule for silence halts, and names it."""
    dying = Habits(**QUIET, failures={FailureClass.SILENT: 0.3})
    rules = [{"classes": ["silent_after_activation"], "count": 2}]
    trace = run(habits=dying, halt_rules=rules, halt_ratio=1.0)
    assert state(trace) is RolloutState.HALTED
    assert trace.rollout is not None and "failed as silent_after_activation, halts at 2" in trace.rollout.reason


def test_a_person_opens_the_next_stage_in_time() -> None:
    """The plan's approvals take the time that is said."""
    stages = [{**STAGES[0], "approval": True}, STAGES[1]]
    trace = run(habits=Habits(**QUIET, approve_s=10 * HOUR_S), stages=stages)
    assert state(trace) is RolloutState.COMPLETED
    assert trace.end_s > 5 * HOUR_S


def test_the_end_of_the_plan_is_kept() -> None:
    """What was not reached by then expires."""
    end = MONDAY + timedelta(hours=2)
    trace = run(500, pace_per_minute=1, start_at=MONDAY, end_at=end)
    assert state(trace) is RolloutState.COMPLETED
    assert trace.samples[-1].bands["other"] > 300


def test_devices_have_what_the_plan_asks_for() -> None:
    """Groups, labels and sites that it names; what does not add up is refused as it would be."""
    stages = [
        {"name": "lab", "selector": "site=lab"},
        {"name": "ring", "group": "ring"},
        {"name": "all", "percent": 100},
    ]
    trace = run(stages=stages, members={"selector": "line=7"})
    assert [stage.members > 0 for stage in trace.stages] == [True, True, True]
    with pytest.raises(ConflictError, match="in no stage"):
        run(stages=stages[:2])


def test_pictures_hold_what_they_are_given() -> None:
    """Valid XML whatever the names; text of eighty columns, printable."""
    trace = run(300, habits=Habits(failures={FailureClass.HEALTH: 0.02}))
    assert trace.rollout is not None
    root = ET.fromstring(draw_svg(trace))
    words = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any("cam/2.0.0" in word for word in words) and "canary" in words
    text = draw(trace)
    assert max(map(len, text.splitlines()[:30])) <= 100
    assert all(char.isprintable() or char == "\n" for char in text)


@pytest.mark.parametrize("pace", [13, 30])
def test_large_fleets_keep_the_pace_too(pace: int) -> None:
    """What the plan lets out in ten minutes is let out, however rarely a large fleet is looked at."""
    trace = run(25_000, habits=Habits(**QUIET), until_s=600, pace_per_minute=pace, stages=ALL)
    assert 0.95 * 10 * pace <= sum(trace.offers.values()) <= 10 * pace + 1


def test_a_grant_that_ran_out_on_its_way_is_not_used() -> None:
    """The device asks again: never are more unavailable than may, though links are bad; and all come through."""
    away = Habits(offline=0.4, sites=4, lost=0.0)
    trace = run(400, habits=away, stages=ALL, max_unavailable=[{"label": "site", "count": 2}])
    assert state(trace) is RolloutState.COMPLETED
    assert set(trace.most_held.values()) == {2}
    assert trace.samples[-1].bands["succeeded"] == 400


def test_an_abort_reaches_devices_that_have_not_begun_to_install() -> None:
    """They say that they gave up, and the rollout is over long before the time of the simulation is."""
    end = MONDAY + timedelta(hours=2)
    large = Habits(image_bytes=20_000_000_000)
    trace = run(200, habits=large, stages=ALL, start_at=MONDAY, end_at=end, at_end="abort")
    assert state(trace) is RolloutState.ABORTED
    assert trace.rollout is not None and trace.rollout.ended_at is not None
    assert trace.end_s < 3 * DAY_S
    bands = trace.samples[-1].bands
    assert bands["other"] > 150 and bands["downloading"] == bands["fetched"] == 0


def test_an_old_report_does_not_take_a_device_back() -> None:
    """What is heard late is older than what was heard since: nothing that installs has only fetched again."""
    spec = RolloutSpec.model_validate({"release": "cam/2.0.0", "stages": ALL})
    back: list[str] = []

    class Watched(World):
        def _change(self, changes: Sequence[Change]) -> None:
            back.extend(was.device for was, row in changes if was.is_changing and row.state == "fetched")
            super()._change(changes)

    world = Watched(spec, 200, Habits(**{**QUIET, "repeated": 1.0}, react_s=120.0), 1, 7 * DAY_S)
    assert state(world.run()) is RolloutState.COMPLETED
    assert back == []
