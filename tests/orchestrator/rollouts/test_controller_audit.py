"""What the controller writes into the audit log, and that it stops when another orchestrator leads."""

import asyncio
from functools import partial

import pytest

from orchestrator.config import Settings
from orchestrator.errors import LostLeadError
from orchestrator.rollouts.controller import Controller
from orchestrator.rollouts.replaying import check_decision, facts_of
from orchestrator.storage import assignments, audit
from orchestrator.storage.database import Database
from protocol.states import State
from tests.orchestrator.rollouts.yard import NOW, Yard, plan

DEADLINE_S = 10.0


async def test_a_decision_stands_before_the_moves_that_it_makes(yard: Yard) -> None:
    """With the counters as they were; both share a correlation id and say why."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run()
    await yard.look()
    await yard.ready(rollout, "d1")
    async with yard.db.read() as conn:
        before = await assignments.load_counts(conn, rollout)
    await yard.look()
    async with yard.db.read() as conn:
        *_, decision, moves = await audit.page(conn, limit=1000)
    assert (decision.kind, decision.actor, moves.kind, moves.actor) == ("decision", "engine", "moves", "engine")
    assert decision.correlation == moves.correlation and decision.cause == moves.cause
    assert facts_of(decision.figures()).counts == before and check_decision(decision) is None
    assert [move[2] for move in moves.figures()["moves"]] == ["d1"]


async def test_nothing_decided_is_nothing_written(yard: Yard) -> None:
    """A look that leads to nothing leaves no entry."""
    await yard.add_devices(["d1"])
    await yard.run()
    await yard.look()
    async with yard.db.read() as conn:
        head = await audit.head(conn)
    await yard.look()
    async with yard.db.read() as conn:
        assert await audit.head(conn) == head


async def test_a_halt_is_told(yard: Yard) -> None:
    """Once it is written, and once only: so that the log's end is signed at once."""
    told: list[str] = []
    controller = Controller(yard.db, yard.clock, Settings(), lambda: None, lambda: told.append("halted"))
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run(plan(halt_min_sample=1))
    await controller.look()
    await yard.ready(rollout, "d1")
    await controller.look()
    assert told == []
    await yard.report(rollout, "d1", State.FAILED)
    await controller.look()
    await controller.look()
    assert told == ["halted"]


async def test_it_ends_when_another_orchestrator_leads(yard: Yard) -> None:
    """Its decision is not written, and it does not try on."""
    await yard.add_devices(["d1"])
    rollout = await yard.run()
    other = await Database.open(yard.db.path)
    try:
        await other.take_lead(NOW)
    finally:
        await other.close()
    with pytest.raises(LostLeadError, match="another orchestrator took over"):
        async with asyncio.timeout(DEADLINE_S):
            await yard.controller.run()
    assert await yard.stages(rollout) == ["pending"]


async def test_who_lost_the_lead_writes_nothing_even_where_nothing_is_decided(yard: Yard) -> None:
    """Facts may have changed since the first look at them; marks of topics are writes, too."""
    await yard.add_devices(["d1"])
    rollout = await yard.run()
    await yard.look()
    other = await Database.open(yard.db.path)
    try:
        await other.take_lead(NOW)
    finally:
        await other.close()
    with pytest.raises(LostLeadError):
        await yard.db.write(partial(yard.controller._decide, rollout_id=rollout, now=NOW))
