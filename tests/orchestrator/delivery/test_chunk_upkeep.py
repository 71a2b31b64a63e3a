"""A broker holds what some rollout needs, within its budget; the rest is cleared, and comes back when it is needed."""

import os
from datetime import timedelta

import pytest
from sqlalchemy import update

from orchestrator.errors import OperationError
from orchestrator.rollouts.fact_loading import load_facts
from orchestrator.storage import chunk_keeping, releases
from orchestrator.storage.tables import releases as releases_table
from tests.orchestrator.delivery.chunk_yard import DAY_S, START, ChunkYard, chunk_yard
from tests.orchestrator.delivery.lab import Lab

OLD, NEW = "gateway/1.0.0", "gateway/2.0.0"
SHARED, OF_OLD, OF_NEW = ([os.urandom(100) for _ in range(20)] for _ in range(3))


async def two_releases(yard: ChunkYard) -> None:
    """Two that share twenty chunks and have twenty each, published."""
    await yard.lab.add_release([*SHARED, *OF_OLD], OLD, at=START)
    await yard.lab.add_release([*SHARED, *OF_NEW], NEW, at=START)
    assert (await yard.publish(OLD), await yard.publish(NEW)) == (4000, 2000)


async def test_chunks_stay_until_the_last_rollout_of_any_release_and_its_grace(lab: Lab) -> None:
    """What only the old release has is cleared a week after its rollout; what both have goes with the last of them."""
    async with chunk_yard(lab) as yard:
        await two_releases(yard)
        await yard.roll_out("r-old", OLD)
        await yard.roll_out("r-new", NEW)
        yard.clock.advance(40 * DAY_S)  # longer than an unused release is kept
        await yard.end("r-old")
        yard.clock.advance(6.9 * DAY_S)
        assert await yard.settle() == 0
        assert len(await yard.held()) == 60
        yard.clock.advance(0.2 * DAY_S)
        await yard.settle()
        assert await yard.held() == {lab.put(data) for data in [*SHARED, *OF_NEW]}
        assert await yard.retains(OF_OLD[0], SHARED[0], OF_NEW[0]) == [False, True, True]
        assert ((await yard.on_broker(OLD)).state, (await yard.on_broker(NEW)).state) == ("cleared", "held")
        assert (yard.chunks.retained_bytes, yard.figure("flagship_chunks_cleared_total")) == (4000, 20)
        await yard.end("r-new")
        yard.clock.advance(7.1 * DAY_S)
        await yard.settle()
        assert (await yard.held(), yard.chunks.retained_bytes) == (set(), 0)


async def test_a_release_that_nobody_rolls_out_is_kept_for_a_time(lab: Lab) -> None:
    """A month from publishing; publishing it again brings it back for another."""
    async with chunk_yard(lab) as yard:
        await two_releases(yard)
        yard.clock.advance(29.9 * DAY_S)
        await yard.settle()
        assert len(await yard.held()) == 60
        await yard.publish(NEW)
        yard.clock.advance(0.2 * DAY_S)
        await yard.settle()
        assert await yard.held() == {lab.put(data) for data in [*SHARED, *OF_NEW]}
        assert await yard.publish(OLD) == 2000
        yard.clock.advance(29 * DAY_S)
        await yard.settle()
        assert len(await yard.held()) == 60


async def test_a_withdrawn_release_goes_with_its_last_rollout(lab: Lab) -> None:
    """Without a grace, and never while a device may still be at it."""
    async with chunk_yard(lab) as yard:
        await two_releases(yard)
        await yard.roll_out("r-old", OLD)
        async with lab.db.begin() as conn:
            await conn.execute(
                update(releases_table).where(releases_table.c.id == OLD).values(state=releases.WITHDRAWN)
            )
        await yard.settle()
        assert len(await yard.held()) == 60
        await yard.end("r-old")
        await yard.settle()
        assert await yard.retains(OF_OLD[3], SHARED[3]) == [False, True]


async def test_a_new_rollout_brings_a_cleared_release_back_and_its_offers_wait(lab: Lab) -> None:
    """The engine sees it as not deliverable from the clearing on until every chunk was read back."""
    async with chunk_yard(lab) as yard:
        await two_releases(yard)
        yard.clock.advance(31 * DAY_S)
        await yard.upkeep.step(yard.session)  # one piece of the clearing
        assert (await yard.on_broker(OLD)).state == "clearing"
        await yard.roll_out("r-again", OLD)
        async with lab.db.read() as conn:
            facts = await load_facts(conn, "r-again")
        assert facts is not None and not facts.is_deliverable
        await yard.settle()
        assert await yard.held() == {lab.put(data) for data in [*SHARED, *OF_OLD]}
        assert all(await yard.retains(*SHARED, *OF_OLD))
        async with lab.db.read() as conn:
            facts = await load_facts(conn, "r-again")
        assert facts is not None and facts.is_deliverable


async def test_what_was_cleared_of_another_release_meanwhile_is_missed(lab: Lab) -> None:
    """A release that shared chunks with a cleared one is not whole, and is brought when it is rolled out."""
    async with chunk_yard(lab) as yard:
        await two_releases(yard)
        yard.clock.advance(31 * DAY_S)
        await yard.upkeep.step(yard.session)
        await yard.roll_out("r-new", NEW)
        await yard.settle()
        assert (await yard.on_broker(NEW)).state == "held"
        assert await yard.held() == {lab.put(data) for data in [*SHARED, *OF_NEW]}


async def test_a_release_beyond_the_budget_is_refused_with_figures(lab: Lab) -> None:
    """The sentence names what is needed, held and allowed, and what leaves when; nothing was sent. At it, it fits."""
    await lab.add_release([*SHARED, *OF_OLD], OLD, at=START)
    await lab.add_release([*SHARED, *OF_NEW], NEW, at=START)
    async with chunk_yard(lab, max_retained_bytes=5999) as yard:
        await yard.publish(OLD)
        with pytest.raises(
            OperationError,
            match=r"gateway/2.0.0 needs 2000 B more, 4000 B of 5999 B are in use; may be cleared by itself: "
            r"gateway/1.0.0 after 2026-12-25T00:00Z; raise max_retained_bytes",
        ):
            await yard.publish(NEW)
        assert len(await yard.held()) == 40
    async with chunk_yard(lab, max_retained_bytes=6000) as yard:
        assert await yard.publish(NEW) == 2000


async def test_beyond_the_budget_pieces_alone_stand_on_the_broker_until_there_is_room(lab: Lab) -> None:
    """Mirrors only: published with its sealed manifest; its chunks come when another release leaves."""
    await lab.add_release([*SHARED, *OF_OLD], OLD, at=START)
    await lab.add_release([*SHARED, *OF_NEW], NEW, pieces=OF_NEW[:2], at=START)
    async with chunk_yard(lab, max_retained_bytes=5000, beyond_budget="mirrors-only") as yard:
        await yard.publish(OLD)
        await yard.roll_out("r-old", OLD)
        assert await yard.publish(NEW) == 200
        found = await yard.on_broker(NEW)
        assert (found.state, found.missing_bytes) == ("mirrors-only", 1800)
        assert await yard.retains(*OF_NEW[:3]) == [True, True, False]
        await yard.roll_out("r-new", NEW)
        assert await yard.settle() == 0
        async with lab.db.read() as conn:
            assert await chunk_keeping.not_deliverable(conn, [NEW]) == set()
        await yard.end("r-old")
        yard.clock.advance(7.1 * DAY_S)
        assert await yard.settle() == 1800
        assert (await yard.on_broker(NEW)).state == "held"
        assert all(await yard.retains(*SHARED, *OF_NEW))


async def test_a_chunk_that_the_store_lost_is_named_and_tried_again(lab: Lab) -> None:
    """The others come; when the package was imported again, so does that one."""
    async with chunk_yard(lab) as yard:
        await two_releases(yard)
        yard.clock.advance(31 * DAY_S)
        await yard.settle()
        await yard.roll_out("r-old", OLD)
        lab.chunks.remove([lab.put(OF_OLD[5])])
        await yard.settle()
        assert "import gateway/1.0.0 again" in (await yard.on_broker(OLD)).why
        lab.put(OF_OLD[5])
        yard.clock.advance(timedelta(minutes=2).total_seconds())
        await yard.settle()
        assert (await yard.on_broker(OLD)).state == "held"
