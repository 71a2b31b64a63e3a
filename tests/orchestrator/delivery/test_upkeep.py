"""What ran out: renewed where it is wanted, cleared where it is not, and never while it might still be accepted."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from orchestrator.delivery.upkeep import LIMIT, MARGIN, sweep
from orchestrator.storage.database import Database
from protocol.topics import Kind
from tests.orchestrator.delivery.rows import (
    LONG_AGO,
    NOW,
    REVOKED,
    TOPICS,
    add_member,
    add_published,
    take_marks,
)  # fmt: skip


async def swept(db: Database) -> list[str]:
    """Topics that may be cleared."""
    async with db.begin() as conn:
        return [item.topic for item in await sweep(conn, "main", TOPICS, NOW)]


@pytest.mark.parametrize("grant", ["download", "activate"])
async def test_an_open_offer_that_ran_out_is_signed_again(db: Database, grant: str) -> None:
    """The engine missed it: serve was away for longer than a lease."""
    await add_member(db, "r-1", "d1", grant)
    await add_published(db, Kind.OFFER, LONG_AGO, device="d1", rollout="r-1")
    assert await swept(db) == []
    assert await take_marks(db) == {(Kind.OFFER, "d1/r-1")}


async def test_what_nobody_wants_any_more_is_cleared(db: Database) -> None:
    """A closed offer, that of a revoked device, that of no member; the announcement of no rollout."""
    await add_member(db, "r-1", "d1", "closed")
    await add_member(db, "r-2", "d2", **REVOKED)
    topics = [
        await add_published(db, Kind.OFFER, LONG_AGO, device="d1", rollout="r-1"),
        await add_published(db, Kind.OFFER, LONG_AGO, device="d2", rollout="r-2"),
        await add_published(db, Kind.OFFER, LONG_AGO, device="d3", rollout="r-1"),
        await add_published(db, Kind.ANNOUNCE, LONG_AGO, rollout="r-9"),
    ]
    assert sorted(await swept(db)) == sorted(topics)
    assert await take_marks(db) == set()


async def test_a_live_rollout_is_announced_again_and_an_ended_one_cleared(db: Database) -> None:
    """With its offers, open or not."""
    await add_member(db, "r-1", "d1")
    announced = await add_published(db, Kind.ANNOUNCE, LONG_AGO, rollout="r-1")
    assert await swept(db) == []
    assert await take_marks(db) == {(Kind.ANNOUNCE, "r-1")}
    offered = await add_published(db, Kind.OFFER, LONG_AGO, device="d1", rollout="r-1")
    async with db.begin() as conn:
        await conn.execute(text("UPDATE rollouts SET ended_at = '2026-11-24T11:00:00.000000Z'"))
    assert sorted(await swept(db)) == sorted([announced, offered])


async def test_nothing_is_cleared_while_a_slow_clock_might_accept_it(db: Database) -> None:
    """Until the margin has passed; what never expires stays for ever."""
    await add_published(db, Kind.OFFER, NOW - MARGIN, device="d1", rollout="r-1")
    await add_published(db, Kind.TRUST_BUNDLE)
    assert await swept(db) == []
    await add_published(db, Kind.OFFER, NOW - MARGIN - timedelta(microseconds=1), device="d2", rollout="r-1")
    assert len(await swept(db)) == 1


async def test_one_sweep_is_bounded(db: Database) -> None:
    """The oldest first; the rest at the next one."""
    for number in range(LIMIT + 3):
        await add_published(db, Kind.ANNOUNCE, LONG_AGO + timedelta(seconds=number), rollout=f"r-{number}")
    first = await swept(db)
    assert len(first) == LIMIT
    assert first[0] == TOPICS.build(Kind.ANNOUNCE, rollout="r-0")
