"""A release that a broker lacks is brought while somebody needs it, and waited for no longer than that."""

import os
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.errors import OperationError
from orchestrator.storage import brokers, published, releases
from tests.orchestrator.delivery.chunk_yard import DAY_S, START, chunk_yard
from tests.orchestrator.delivery.lab import RELEASE, Lab, until

WANTED = "gateway/2.0.0"
NOW = datetime.now(UTC)


async def test_what_nobody_needs_any_more_is_not_brought(lab: Lab) -> None:
    """A broker that was away until the release was of no use holds nothing of it, and is not behind."""
    of_old = [os.urandom(100)]
    await lab.add_release(of_old, RELEASE, at=NOW - timedelta(days=40))
    await lab.add_release([os.urandom(100)], WANTED, at=NOW)
    async with lab.db.begin() as conn:
        for release in (RELEASE, WANTED):
            await releases.set_state(conn, release, releases.PUBLISHED)
        await brokers.fall_behind(conn, ["main"], [RELEASE, WANTED], NOW)
    async with lab.running():

        async def caught_up() -> bool:
            async with lab.db.read() as conn:
                return not await brokers.lacking(conn, "main")

        await until(caught_up, "the broker is not behind")
    async with lab.db.read() as conn:
        topic = f"{lab.topics.root}/chunk/{lab.put(of_old[0])}"
        assert await published.held(conn, "main", [topic]) == set()
        (record,) = [await releases.get(conn, WANTED)]
    assert record is not None and record.published_bytes == 100


async def test_trying_again_does_not_make_a_release_needed(lab: Lab) -> None:
    """Only an operator's word counts as one: what never fitted is not waited for for ever."""
    await lab.add_release([os.urandom(100)], RELEASE, at=START)
    async with chunk_yard(lab, max_retained_bytes=50) as yard:
        with pytest.raises(OperationError, match="needs 100 B more"):
            await yard.publish(RELEASE)
        yard.clock.advance(29 * DAY_S)
        with pytest.raises(OperationError, match="needs 100 B more"):
            await yard.upkeep.bring(yard.session, RELEASE)
        assert await yard.upkeep.is_needed(RELEASE)
        yard.clock.advance(2 * DAY_S)
        assert not await yard.upkeep.is_needed(RELEASE)
