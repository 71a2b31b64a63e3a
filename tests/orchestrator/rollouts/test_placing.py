"""Members chosen from the database, placed in batches, and joined by newcomers."""

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.model.assignment import FIELDS, Assignment
from orchestrator.model.device import DeviceState
from orchestrator.model.plan import Members, RolloutSpec, StageSpec, UnavailableLimit
from orchestrator.model.rollout import RolloutState, StageState
from orchestrator.rollouts import creating, placing
from orchestrator.rollouts.members import Exclusion
from orchestrator.rollouts.placing import why_not
from orchestrator.rollouts.plans import Plan
from orchestrator.storage import groups, rollouts
from protocol.states import State
from protocol.versions import compare
from tests.orchestrator.rollouts.yard import NOW, Yard, plan

HALVES = (StageSpec(name="half", percent=50), StageSpec(name="all", percent=100))


async def choose(yard: Yard, spec: RolloutSpec, rollout: str = "") -> Plan:
    """The plan over the fleet as it is."""

    async def work(conn: Any) -> Plan:
        return await placing.plan_members(conn, spec, await placing.load_facts(conn, spec, compare, rollout))

    return await yard.db.look(work)


async def draft(yard: Yard, spec: RolloutSpec, name: str = "r-1") -> str:
    """A rollout without members, as a plan that was stored."""
    async with yard.db.begin() as conn:
        await rollouts.insert(conn, name, spec, RolloutState.DRAFT, NOW)
    return name


async def test_members_are_chosen_from_the_whole_fleet(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page, with the reason of everybody who is left out."""
    monkeypatch.setattr("orchestrator.storage.devices._PLANNED_AT_ONCE", 3)
    await yard.add_devices([f"d{n}" for n in range(10)], group="some", labels={"site": "lab"})
    await yard.add_devices(["e1"], hardware="rev-z")
    await yard.set_device_state("d3", DeviceState.REVOKED)
    made = await choose(yard, plan(*HALVES, members=Members(selector="site=lab")))
    assert made.ids == [f"d{n}" for n in range(10) if n != 3]
    assert made.sizes() == [5, 4]
    assert made.by_site() == {"lab": 9}
    assert made.exclusions.counts == {Exclusion.CLOSED: 1, Exclusion.NOT_SELECTED: 1}
    assert made.examined == 11


async def test_who_rolled_it_back_or_is_at_it_elsewhere_stays_out(yard: Yard) -> None:
    """Until it is tried again by name, or the other rollout has ended; a draft holds nobody."""
    await yard.add_devices(["d1", "d2", "d3"], group="two")
    first = await yard.run()
    await yard.look()
    for device in ("d1", "d2", "d3"):
        await yard.ready(first, device)
    await yard.look()
    await yard.report(first, "d1", State.ROLLED_BACK)
    await yard.report(first, "d2", State.SUCCEEDED)
    with pytest.raises(ConflictError, match="no member"):
        await choose(yard, plan(members=Members(selector="id in (d1,d3)")))
    again = await choose(yard, plan(members=Members(selector="id in (d2,d3)")))
    assert again.ids == ["d2"]
    assert again.exclusions.examples[Exclusion.ELSEWHERE] == [
        ("d3", f"has an open part in rollout {first} of the same release")
    ]
    assert (await choose(yard, plan(), rollout=first)).ids == ["d2", "d3"]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (plan(members=Members(group="zz")), "group zz: there is none"),
        (plan(StageSpec(name="s", group="zz")), "group zz: there is none"),
        (plan(max_unavailable=(UnavailableLimit(group="zz", count=1),)), "group zz: there is none"),
        (plan(*(StageSpec(name=n, group=n) for n in "abcd")), "groups a, b, c and 1 more: there are none"),
        (plan(members=Members(devices=("d1", "x", "y"))), "members.devices: devices x, y: there are none"),
        (plan(StageSpec(name="s", devices=("x",))), "stage s: device x: there is none"),
        (RolloutSpec(release="gateway/9", stages=list(HALVES)), "release gateway/9: there is none"),
    ],
)
async def test_what_does_not_exist_is_named(yard: Yard, spec: RolloutSpec, says: str) -> None:
    """Up to three of them."""
    await yard.add_devices(["d1"])
    with pytest.raises(NotFoundError) as refused:
        await choose(yard, spec)
    assert says in str(refused.value)


async def test_places_become_rows(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the ordinary way would write them, with their counts, whatever the size of a batch."""
    monkeypatch.setattr("orchestrator.rollouts.placing.BATCH", 3)
    await yard.add_devices([f"d{n}" for n in range(8)], labels={"site": "l'ab"})
    spec = plan(*HALVES, max_unavailable=(UnavailableLimit(label="site", count=1),))
    made = await choose(yard, spec)
    rollout = await draft(yard, spec)
    assert await placing.place(yard.db, rollout, made) == [4, 4]
    await yard.check_counts()
    rows = await yard.rows(rollout)
    plain = [Assignment(rollout=rollout, device=p.device, stage=p.stage, place=p.order) for p in made.places()]
    names = [name for name in FIELDS if name not in ("site", "scopes")]
    assert [[getattr(row, n) for n in names] for row in rows] == [[getattr(row, n) for n in names] for row in plain]
    if "site" in FIELDS:
        assert {(getattr(row, "site"), tuple(getattr(row, "scopes"))) for row in rows} == {("l'ab", ("site=l'ab",))}  # noqa: B009


async def test_what_a_crash_left_is_taken_away_first(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members that have left the fleet in between have no row, and counts are right."""
    monkeypatch.setattr("orchestrator.rollouts.placing.BATCH", 3)
    await yard.add_devices([f"d{n}" for n in range(8)])
    spec = plan(*HALVES)
    rollout = await draft(yard, spec)
    await placing.place(yard.db, rollout, await choose(yard, spec))
    await yard.set_device_state("d7", DeviceState.RETIRED)
    assert sum(await placing.place(yard.db, rollout, await choose(yard, spec, rollout))) == 7
    assert [row.device for row in await yard.rows(rollout)] == [f"d{n}" for n in range(7)]
    await yard.check_counts()


@pytest.mark.parametrize("state", [RolloutState.RUNNING, RolloutState.ABORTED, RolloutState.COMPLETED])
async def test_a_rollout_that_has_begun_keeps_its_places(yard: Yard, state: RolloutState) -> None:
    """Also one that was aborted while its members were placed."""
    await yard.add_devices(["d1"])
    rollout = await draft(yard, plan())
    made = await choose(yard, plan())
    await placing.place(yard.db, rollout, made)
    async with yard.db.begin() as conn:
        await rollouts.save(conn, rollout, state=state)
    with pytest.raises(ConflictError, match=f"is {state}; members are placed before it starts"):
        await placing.place(yard.db, rollout, made)
    assert len(await yard.rows(rollout)) == 1
    with pytest.raises(NotFoundError, match="rollout r-9"):
        await placing.place(yard.db, "r-9", made)


async def test_newcomers_join_the_last_stage_that_has_begun(yard: Yard) -> None:
    """Who fits and has no place yet; nobody before a stage is open."""
    await yard.add_devices(["d1", "d2"], group="some")
    limit = (UnavailableLimit(label="site", count=1), UnavailableLimit(group="some", count=1))
    spec = plan(*HALVES, members=Members(selector="hardware=rev-a"), max_unavailable=limit)
    rollout = await yard.run(spec)

    async def joining(*ids: str) -> list[tuple[Any, ...]]:
        async with yard.db.read() as conn:
            found = await placing.newcomers(conn, await yard.rollout(rollout), ids, compare)
        return [(place.device, place.stage, place.site, place.scopes) for place in found]

    assert await joining("d9") == []
    await yard.look()
    await yard.add_devices(["d8", "d9"], labels={"site": "lab"})
    await yard.add_devices(["z1"], hardware="rev-z")
    async with yard.db.begin() as conn:
        await groups.add_members(conn, "some", ["d9"])
    both = [("d8", 0, "lab", ("site=lab",)), ("d9", 0, "lab", ("site=lab", "group:some"))]
    assert await joining("d1", "d8", "d9", "z1", "nobody") == both
    async with yard.db.begin() as conn:
        stages = await rollouts.load_stages(conn, rollout)
        await rollouts.save_stages(conn, [replace(stage, state=StageState.OPEN) for stage in stages])
    assert [stage for _, stage, _, _ in await joining("d8")] == [1]


async def test_why_a_device_has_no_part(yard: Yard) -> None:
    """What keeps it out, or that it came too late, or that nothing has begun."""
    await yard.add_devices(["d1"])
    await yard.add_devices(["other"], hardware="rev-z")
    draft = await creating.create(yard.db, yard.clock, plan())
    async with yard.db.read() as conn:
        assert "has not started; by what is known now it will" in await why_not(conn, draft, "d1", compare)
    await creating.start(yard.db, yard.clock, draft.id)
    await yard.add_devices(["late"])
    rollout = await yard.rollout(draft.id)
    async with yard.db.read() as conn:
        assert await why_not(conn, rollout, "other", compare) == "it is rev-z, the release is for rev-a"
        late = await why_not(conn, rollout, "late", compare)
    assert late == "it fits now, and members were fixed when the rollout started at 2026-11-24T12:00:00Z"
