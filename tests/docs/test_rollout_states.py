"""The diagrams of docs/explanation/rollouts.md have the moves of the code, all of them and no other."""

import re
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

from orchestrator.model.plan import AtEnd, StageSpec
from orchestrator.model.rollout import Rollout, RolloutState, Stage, StageState
from orchestrator.rollouts.engine import reconcile
from orchestrator.rollouts.facts import Facts
from orchestrator.rollouts.operations import _VERBS, Order, _changes, allowed_verbs
from orchestrator.rollouts.stage_moves import move_stages
from protocol.states import State
from tests.orchestrator.rollouts.yard import plan

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "rollouts.md"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LEASE = timedelta(days=1)
MEMBERS = 10
Move = tuple[str, str]


def drawn(name: str) -> dict[Move, str]:
    """The moves of one diagram, with what stands on each arrow."""
    (block,) = re.findall(rf"^    {name} .*\n(?:     .*\n)*", PAGE.read_text(), re.MULTILINE)
    found: dict[Move, str] = {}
    for chain in re.split(r"[;\n]", block.replace(name, "", 1)):
        parts = re.split(r" --(.+?)--> ", chain.strip())
        for before, words, after in zip(parts[0::2], parts[1::2], parts[2::2], strict=False):
            assert (before, after) not in found, f"{before} to {after} is drawn twice"
            found[before, after] = words
    return found


def rollout(state: RolloutState, **rules: object) -> Rollout:
    """One of two stages in a state."""
    spec = plan(StageSpec(name="first", percent=50), StageSpec(name="rest", percent=100), **rules)
    return Rollout(id="r-1", release=spec.release, state=state, spec=spec, created_at=NOW, started_at=NOW)


def stage(position: int, state: StageState, soaking_since: datetime | None = None) -> Stage:
    """One of the two."""
    return Stage(
        rollout="r-1", position=position, name=f"s{position}", state=state, members=MEMBERS, soaking_since=soaking_since
    )


def ordered() -> dict[Move, set[str]]:
    """Where a person's verbs lead to."""
    found: dict[Move, set[str]] = {}
    for state in RolloutState:
        for verb in allowed_verbs(rollout(state)):
            after = _changes(rollout(state), Order(verb=verb), NOW).get("state", state)
            if after is not state:
                found.setdefault((state.value, after.value), set()).add(verb)
    return found


def decided() -> set[Move]:
    """Where the engine leads to: bad or all done or neither, before and after each kind of end."""
    found: set[Move] = set()
    outcomes: tuple[dict[str, int], ...] = (
        {},
        {f"state:{State.SUCCEEDED}": MEMBERS},
        {"state:failed": MEMBERS, "failed:failed:install": MEMBERS},
    )
    for state, counts, at_end, over in product(RolloutState, outcomes, AtEnd, (False, True)):
        end = NOW if over else NOW + timedelta(days=1)
        facts = Facts(
            rollout=rollout(state, end_at=end, at_end=at_end),
            stages=[stage(0, StageState.PASSED), stage(1, StageState.OPEN)],
            counts={0: counts, 1: counts},
        )
        decisions = reconcile(facts, NOW, LEASE)
        after = RolloutState.RUNNING if decisions.begin else decisions.rollout.state
        if after is not state:
            found.add((state.value, after.value))
    return found


def test_the_diagram_of_rollouts_is_the_code() -> None:
    """Every verb stands on its arrow; what the engine does by itself is drawn; nothing else is."""
    picture, orders = drawn("rollout"), ordered()
    by_hand = {("scheduled", "draft")}  # by the controller: a start that is refused
    assert set(picture) == set(orders) | decided() | by_hand
    for move, words in picture.items():
        assert {verb for verb in _VERBS if re.search(rf"\b{verb}\b", words.replace("cannot start", ""))} == orders.get(
            move, set()
        ), move


def test_the_diagram_of_stages_is_the_code() -> None:
    """Rules met or not; soaks that are over, run or are not asked for; a person who is wanted or not."""
    found = {(before.value, "passed") for before in StageState if before not in (StageState.PENDING, StageState.PASSED)}
    met, unmet = {f"state:{State.SUCCEEDED}": MEMBERS}, {f"state:{State.DOWNLOADING}": MEMBERS}
    since = (None, NOW - timedelta(seconds=5), NOW - timedelta(days=1))
    for state, counts, soak_s, begun, approval in product(StageState, (met, unmet), (0.0, 60.0), since, (False, True)):
        facts = Facts(
            rollout=rollout(RolloutState.RUNNING, soak_s=soak_s, approval=approval),
            stages=[stage(0, state, begun), stage(1, StageState.PENDING)],
            counts={0: counts},
        )
        changed, _ = move_stages(facts, NOW)
        found |= {(state.value, one.state.value) for one in changed if one.position == 0 and one.state is not state}
    assert set(drawn("stage")) == found
