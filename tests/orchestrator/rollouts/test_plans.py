"""Every member has a stage and a place; places are spread over sites."""

import math
from array import array
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConflictError
from orchestrator.model.candidate import Candidate
from orchestrator.model.plan import MAX_STAGES, StageSpec, UnavailableLimit
from orchestrator.rollouts.members import Groups, Place
from orchestrator.rollouts.plans import Plan, Roster, ScopeReader, spread
from tests.orchestrator.rollouts.fleets import candidate
from tests.orchestrator.rollouts.yard import plan


def placed(
    devices: list[Candidate], *stages: StageSpec, groups: Groups | None = None, seed: int = 1, **rules: Any
) -> Plan:
    """Everybody is a member."""
    roster = Roster(plan(*stages, **rules), lambda _: None, groups or {})
    roster.add(devices)
    return roster.place("rollout r-1", Random(seed))


def fleet(number: int) -> list[Candidate]:
    """So many devices, in the order of their ids."""
    return [candidate(f"d{count:04}") for count in range(number)]


@given(
    st.integers(1, 300),
    st.lists(st.integers(1, 99), unique=True, max_size=4).map(sorted),
    st.sets(st.integers(0, 299), max_size=20),
    st.sets(st.integers(0, 299), min_size=1, max_size=5),
    st.integers(),
)
def test_everybody_has_one_place(
    count: int, shares: list[int], canaries: set[int], listed: set[int], seed: int
) -> None:
    """Stages share out all members, and a percentage is reached counting those of earlier stages: or it is refused."""
    members = fleet(count)
    groups = {"canary": frozenset(f"d{number:04}" for number in canaries)}
    stages = [StageSpec(name="canary", group="canary")] if canaries else []
    stages += [StageSpec(name=f"s{share}", percent=share) for share in shares]
    stages += [StageSpec(name="list", devices=tuple(f"d{number:04}" for number in sorted(listed)))]
    stages += [StageSpec(name="all", percent=100)]
    try:
        places = list(placed(members, *stages, groups=groups, seed=seed).places())
    except ConflictError as error:
        assert "is empty" in str(error)
        return
    assert [place.device for place in places] == [device.id for device in members]
    assert all(0 <= place.order < 1 for place in places)
    first = {place.device for place in places if place.stage == 0}
    if canaries:
        assert first == groups["canary"] & {device.id for device in members}
    for position, stage in enumerate(stages):
        reached = sum(place.stage <= position for place in places)
        assert any(place.stage == position for place in places)
        if stage.percent is not None:
            assert count * stage.percent / 100 <= reached < count * stage.percent / 100 + 1


@given(st.lists(st.integers(0, 5), min_size=1, max_size=400), st.floats(0, 1), st.integers())
def test_any_beginning_holds_the_same_share_of_each_site(sites: list[int], share: float, seed: int) -> None:
    """Of a site with n devices, share * n have had their turn when that share of the way is done, to within one."""
    random, number = Random(seed), len(sites)
    by_chance, site_of = array("I", range(number)), array("I", sites)
    random.shuffle(by_chance)
    order_of = spread(by_chance, array("h", [0]) * number, site_of, random)
    reached = Counter(site for site, order in zip(sites, order_of, strict=True) if order < share)
    for site, size in Counter(sites).items():
        assert math.floor(share * size) <= reached[site] <= math.ceil(share * size)


def test_sites_are_spread_in_each_stage_by_itself() -> None:
    """Ten of each site in a stage come one after another, ten times."""
    devices = [candidate(f"d{n:03}", labels={"site": f"s{n % 10}", "half": str(n % 20 // 10)}) for n in range(200)]
    halves = [StageSpec(name="one", selector="half=0"), StageSpec(name="two", selector="half=1")]
    places = list(placed(devices, *halves).places())
    for stage in (0, 1):
        in_order = sorted((place for place in places if place.stage == stage), key=lambda place: place.order)
        for start in range(0, 100, 10):
            assert len({place.site for place in in_order[start : start + 10]}) == 10


def test_the_order_is_by_chance() -> None:
    """Two seeds choose other canaries; one seed always the same ones."""
    stages = (StageSpec(name="few", percent=10), StageSpec(name="all", percent=100))

    def first(seed: int) -> set[str]:
        return {place.device for place in placed(fleet(100), *stages, seed=seed).places() if place.stage == 0}

    assert first(1) == first(1) != first(2)


@pytest.mark.parametrize(("percent", "members", "first"), [(7, 100, 7), (16.1, 1000, 161)])
def test_shares_are_exact(percent: float, members: int, first: int) -> None:
    """16.1 * 1000 / 100 is 161.00000000000003, which is not a reason for one device more."""
    stages = (StageSpec(name="few", percent=percent), StageSpec(name="all", percent=100))
    assert placed(fleet(members), *stages).sizes() == [first, members - first]


def test_an_earlier_share_may_take_whom_a_later_stage_names() -> None:
    """Stages take in order; the later one gets the rest."""
    stages = (StageSpec(name="half", percent=50), StageSpec(name="named", selector="product=gateway"))
    assert placed(fleet(10), *stages).sizes() == [5, 5]


def test_as_many_stages_as_a_plan_may_have() -> None:
    """Each takes its own."""
    devices = [candidate(f"d{n:04}", labels={"site": f"s{n % MAX_STAGES}"}) for n in range(2 * MAX_STAGES)]
    stages = [StageSpec(name=f"s{n}", selector=f"site=s{n}") for n in range(MAX_STAGES)]
    assert placed(devices, *stages).sizes() == [2] * MAX_STAGES


def test_a_place_names_site_and_scopes() -> None:
    """Of every limit that may hold the device up; who lacks a label counts with all who lack it."""
    limits = (
        UnavailableLimit(label="site", count=1),
        UnavailableLimit(group="kiosks", count=2),
        UnavailableLimit(label="line", count=1),
    )
    devices = [candidate("a", labels={"site": "lab"}), candidate("b", labels={"line": "x"})]
    made = placed(devices, groups={"kiosks": frozenset({"b"})}, max_unavailable=limits)
    found = {place.device: (place.site, place.scopes) for place in made.places()}
    assert found == {"a": ("lab", ("site=lab", "line=")), "b": ("", ("site=", "line=x", "group:kiosks"))}


def test_without_limits_there_are_no_scopes() -> None:
    """Nothing is read for nothing."""
    assert ScopeReader((), {}).read(candidate()) == ()


def test_a_plan_knows_its_members() -> None:
    """By id, by stage and by site."""
    devices = [candidate(f"d{n}", labels={"site": "lab"} if n else {}, online=n % 2, silent=1) for n in range(4)]
    made = placed(devices)
    assert [made.has(name) for name in ("d0", "d3", "d4", "")] == [True, True, False, False]
    assert (len(made), made.sizes(), made.by_site()) == (4, [4], {"lab": 3, "": 1})
    assert (made.online, made.silent, made.examined) == (2, 4, 4)
    assert isinstance(next(made.places()), Place)


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
            [StageSpec(name="s", devices=("w", "x", "y", "z"))],
            "stage s is empty (devices w, x, y and 1 more of 2",
            id="nobody listed",
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
        placed([candidate("d1"), candidate("d2")], *stages, groups=groups)
    assert says in str(refused.value)


def test_a_rollout_without_members_is_refused() -> None:
    """It would complete without having done anything."""
    with pytest.raises(ConflictError, match=r"r-1: no member; expected enrolled devices that fit gateway/1\.1\.0"):
        placed([])
