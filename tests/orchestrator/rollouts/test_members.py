"""Who takes part and in which stage."""

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConflictError
from orchestrator.model.device import Device, DeviceState
from orchestrator.model.plan import Members, StageSpec
from orchestrator.rollouts.members import place_members, select_members
from protocol.manifest import ReleaseInfo
from tests.orchestrator.rollouts.yard import plan

INFO = ReleaseInfo(
    product="gateway",
    version="1.1.0",
    component="app",
    hardware=["rev-a", "rev-b"],
    counter=1,
    space_bytes=1,
    pieces=["0" * 64],
    chunk_count=1,
)


def device(name: str, **changes: Any) -> Device:
    """A gateway that runs 1.0.0."""
    values: dict[str, Any] = {"product": "gateway", "hardware": "rev-a", "components": {"app": "1.0.0"}}
    return Device(id=name, **(values | changes))


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        pytest.param({}, True, id="fits"),
        pytest.param({"hardware": "rev-b"}, True, id="other hardware that fits"),
        pytest.param({"components": {}}, True, id="version unknown"),
        pytest.param({"hardware": "rev-c"}, False, id="hardware does not fit"),
        pytest.param({"product": "camera"}, False, id="product does not fit"),
        pytest.param({"components": {"app": "1.1.0"}}, False, id="runs it already"),
        pytest.param({"state": DeviceState.REVOKED}, False, id="revoked"),
        pytest.param({"state": DeviceState.RETIRED}, False, id="retired"),
    ],
)
def test_members_fit_the_release(changes: dict[str, Any], taken: bool) -> None:
    """Only devices that can and should install it take part."""
    assert bool(select_members([device("d1", **changes)], Members(), {}, INFO)) is taken


def test_group_and_selector_must_both_hold() -> None:
    """Each narrows what the other gives."""
    found = [device("d1", labels={"site": "lab"}), device("d2", labels={"site": "lab"}), device("d3")]
    members = Members(group="some", selector="site=lab")
    chosen = select_members(found, members, {"some": frozenset({"d2", "d3"})}, INFO)
    assert [d.id for d in chosen] == ["d2"]


@given(
    st.integers(1, 300),
    st.lists(st.integers(1, 99), unique=True, max_size=4).map(sorted),
    st.sets(st.integers(0, 299), max_size=20),
    st.integers(),
)
def test_everybody_has_one_place(count: int, shares: list[int], canaries: set[int], seed: int) -> None:
    """Stages share out all members, and a percentage is reached counting those of earlier stages: or it is refused."""
    members = [device(f"d{number}") for number in range(count)]
    groups = {"canary": frozenset(f"d{number}" for number in canaries)}
    stages = [StageSpec(name="canary", group="canary")] if canaries else []
    stages += [StageSpec(name=f"s{share}", percent=share) for share in (*shares, 100)]
    try:
        places = place_members("r-1", members, plan(*stages), groups, Random(seed))
    except ConflictError as error:
        assert "is empty" in str(error)
        return
    assert sorted(place.device for place in places) == sorted(d.id for d in members)
    first = {place.device for place in places if place.stage == 0}
    if canaries:
        assert first == groups["canary"] & {d.id for d in members}
    for position, stage in enumerate(stages):
        reached = sum(place.stage <= position for place in places)
        assert any(place.stage == position for place in places)
        if stage.percent is not None:
            assert count * stage.percent / 100 <= reached < count * stage.percent / 100 + 1


def test_seven_percent_of_a_hundred_is_seven() -> None:
    """0.07 * 100 is 7.000000000000001, which is not a reason for an eighth device."""
    stages = (StageSpec(name="few", percent=7), StageSpec(name="all", percent=100))
    places = place_members("r-1", [device(f"d{n}") for n in range(100)], plan(*stages), {}, Random(1))
    assert sum(place.stage == 0 for place in places) == 7


def test_the_order_is_by_chance() -> None:
    """Two seeds choose other canaries; one seed always the same ones."""
    stages = (StageSpec(name="few", percent=10), StageSpec(name="all", percent=100))
    members = [device(f"d{n}") for n in range(100)]

    def first(seed: int) -> set[str]:
        return {p.device for p in place_members("r-1", members, plan(*stages), {}, Random(seed)) if p.stage == 0}

    assert first(1) == first(1) != first(2)


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        pytest.param(
            [StageSpec(name="s", group="none")], "stage s is empty (group none of 2 members", id="empty group"
        ),
        pytest.param(
            [StageSpec(name="s", selector="site=x")], "stage s is empty (selector site=x", id="empty selector"
        ),
        pytest.param(
            [StageSpec(name="a", selector="product=gateway"), StageSpec(name="b", percent=100)],
            "stage b is empty (up to 100% of 2 members, 2 of them in earlier stages)",
            id="nobody left",
        ),
        pytest.param([StageSpec(name="s", group="one")], "1 of 2 members are in no stage (d2)", id="left over"),
    ],
)
def test_a_plan_that_does_not_fit_its_members_is_refused(stages: list[StageSpec], says: str) -> None:
    """The sentence names the stage or some of the devices."""
    groups = {"none": frozenset[str](), "one": frozenset({"d1"})}
    with pytest.raises(ConflictError) as refused:
        place_members("r-1", [device("d1"), device("d2")], plan(*stages), groups, Random(1))
    assert says in str(refused.value)


def test_a_rollout_without_members_is_refused() -> None:
    """It would complete without having done anything."""
    with pytest.raises(ConflictError, match=r"r-1: no member; expected enrolled devices that fit gateway/1\.1\.0"):
        place_members("r-1", [], plan(), {}, Random(1))
