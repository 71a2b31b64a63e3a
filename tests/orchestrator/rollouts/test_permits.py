"""Permits: at most so many devices of a site or a group between activating and verified."""

from typing import Any

import pytest

from orchestrator.model.plan import UnavailableLimit
from orchestrator.rollouts.controller import GRANT_SKEW
from protocol.reports import Reason
from protocol.states import Phase, State
from tests.orchestrator.rollouts.yard import LEASE_S, Yard, plan

ONE_PER_SITE = (UnavailableLimit(label="site", count=1),)
GRANT_S = 900.0


async def fetched(yard: Yard, ids: list[str], **rules: Any) -> str:
    """Devices of one site that have fetched the release and ask to install."""
    await yard.add_devices(ids, labels={"site": "lab"})
    rollout = await yard.run(plan(**{"max_unavailable": ONE_PER_SITE, "halt_ratio": 1.0, **rules}))
    await yard.look()
    for device in ids:
        await yard.ready(rollout, device)
    await yard.look()
    for device in ids:
        await yard.report(rollout, device, State.FETCHED)
    while await yard.look() == 0:
        pass
    return rollout


async def granted(yard: Yard, rollout: str) -> list[str]:
    """Devices that hold a grant to activate."""
    return [row.device for row in await yard.rows(rollout) if row.grant == "activate"]


async def test_one_at_a_time(yard: Yard) -> None:
    """The others are heard and wait; each verified report lets the next one in."""
    rollout = await fetched(yard, ["d1", "d2", "d3"])
    done: list[str] = []
    for _ in range(3):
        (device,) = await granted(yard, rollout)
        for state in (State.INSTALLING, State.VERIFYING):
            await yard.report(rollout, device, state)
            await yard.look()
            assert await granted(yard, rollout) == [device]
        await yard.report(rollout, device, State.SUCCEEDED)
        while await yard.look() == 0:
            pass
        done.append(device)
    assert sorted(done) == ["d1", "d2", "d3"]


async def test_a_blocked_device_is_answered_and_keeps_its_question(yard: Yard) -> None:
    """It is told that it was heard, so that it need not repeat itself; its nonce is what the grant will echo."""
    rollout = await fetched(yard, ["d1", "d2"])
    blocked = next(row for row in await yard.rows(rollout) if row.grant != "activate")
    assert (blocked.held_by, blocked.asking) == ("scope:site=lab", True)
    (holder,) = await granted(yard, rollout)
    await yard.report(rollout, holder, State.ROLLED_BACK)
    while await yard.look() == 0:
        pass
    row = await yard.row(rollout, blocked.device)
    assert (row.grant, row.grant_nonce) == ("activate", blocked.nonce)


async def test_a_grant_that_was_not_used_frees_its_permit(yard: Yard) -> None:
    """When it has surely ended on the device too; a restart of the engine in between leaks nothing."""
    rollout = await fetched(yard, ["d1", "d2"])
    (holder,) = await granted(yard, rollout)
    yard.restart()
    yard.clock.advance(GRANT_S + GRANT_SKEW.total_seconds() - 1)
    await yard.look()
    assert await granted(yard, rollout) == [holder]
    yard.clock.advance(1)
    while await yard.look() == 0:
        pass
    (other,) = await granted(yard, rollout)
    assert other != holder


async def test_a_device_at_it_keeps_its_permit_however_long_it_takes(yard: Yard) -> None:
    """It is not there for its site until it says so."""
    rollout = await fetched(yard, ["d1", "d2"])
    (holder,) = await granted(yard, rollout)
    await yard.report(rollout, holder, State.INSTALLING)
    for _ in range(4):
        yard.clock.advance(LEASE_S * 100)
        while await yard.look() == 0:
            pass
    rows = {row.device: row for row in await yard.rows(rollout)}
    assert rows[holder].permits == ("site=lab",)
    assert all(row.grant != "activate" for name, row in rows.items() if name != holder)


async def test_who_waits_to_activate_lets_others_go_first(yard: Yard) -> None:
    """Installed beside the running version, it is there for its site; it asks again when its gates open."""
    rollout = await fetched(yard, ["d1", "d2"])
    (holder,) = await granted(yard, rollout)
    await yard.report(rollout, holder, State.INSTALLING)
    await yard.ready(rollout, holder, Reason(gate="in_use", code="in_use"), phase=Phase.ACTIVATE, attempt=1)
    while await yard.look() == 0:
        pass
    (other,) = await granted(yard, rollout)
    assert other != holder
    await yard.ready(rollout, holder, phase=Phase.ACTIVATE, attempt=1)
    while await yard.look() == 0:
        pass
    assert (await yard.row(rollout, holder)).held_by == "scope:site=lab"


async def test_a_limit_counts_over_all_rollouts(yard: Yard) -> None:
    """A site does not mind which rollout takes its devices away."""
    rollout = await fetched(yard, ["d1"])
    assert await granted(yard, rollout) == ["d1"]
    await yard.add_release(name="gateway/1.2.0")
    await yard.add_devices(["e1"], labels={"site": "lab"})
    second = await yard.run(plan(release="gateway/1.2.0", max_unavailable=ONE_PER_SITE))
    await yard.look()
    await yard.ready(second, "e1")
    await yard.look()
    await yard.report(second, "e1", State.FETCHED)
    while await yard.look() == 0:
        pass
    assert (await yard.row(second, "e1")).held_by == "scope:site=lab"


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.ROLLED_BACK, State.DECLINED, State.CANCELLED])
async def test_every_end_frees_the_permit_but_one(yard: Yard, state: State) -> None:
    """A device that is left inconsistent is not there for its site."""
    rollout = await fetched(yard, ["d1", "d2"])
    (holder,) = await granted(yard, rollout)
    await yard.report(rollout, holder, state)
    assert (await yard.row(rollout, holder)).permits == ()
    await yard.report(rollout, "d2" if holder == "d1" else "d1", State.INCONSISTENT)
    left = await yard.row(rollout, "d2" if holder == "d1" else "d1")
    assert left.permits == ("site=lab",)


@pytest.mark.parametrize("component", ["app", "other"])
async def test_a_device_does_not_wait_for_the_permit_that_it_holds_itself(yard: Yard, component: str) -> None:
    """What brings it back is another rollout; once its component works again it is there for its site."""
    first = await fetched(yard, ["d1", "d2"])
    (broken,) = await granted(yard, first)
    well = "d2" if broken == "d1" else "d1"
    await yard.report(first, broken, State.INCONSISTENT)
    await yard.add_release(name="gateway/1.2.0", component=component)
    second = await yard.run(plan(release="gateway/1.2.0", max_unavailable=ONE_PER_SITE, members={"devices": [broken]}))
    await yard.look()
    await yard.ready(second, broken)
    await yard.look()
    await yard.report(second, broken, State.FETCHED)
    while await yard.look() == 0:
        pass
    assert (await yard.row(second, broken)).grant == "activate"
    assert await granted(yard, first) == []
    await yard.report(second, broken, State.SUCCEEDED)
    while await yard.look() == 0:
        pass
    assert await granted(yard, first) == ([well] if component == "app" else [])
