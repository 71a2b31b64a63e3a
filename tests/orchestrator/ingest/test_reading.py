"""One session after another: refusals and losses end none of it, cancelling ends all of it."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random

import pytest

from orchestrator.ingest.reading import read_for_ever
from protocol.clock import ManualClock
from protocol.mqtt.connection import ConnectionLost, SubscribeRefused


async def test_a_session_follows_the_next_until_cancelled() -> None:
    """Whatever ended the one before it; and what is no matter of the link is not passed over."""
    ends: Iterator[Exception] = iter(
        [ConnectionLost("gone"), SubscribeRefused("no"), ConnectionLost("gone"), KeyError("a mistake of ours")]
    )
    began: list[int] = []

    async def session() -> None:
        began.append(1)
        raise next(ends)

    with pytest.raises(KeyError):
        async with asyncio.timeout(20):
            await read_for_ever(session, "test", ManualClock(datetime(2026, 11, 25, tzinfo=UTC)), Random(1))
    assert len(began) == 4

    async def endless() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(
        read_for_ever(endless, "test", ManualClock(datetime(2026, 11, 25, tzinfo=UTC)), Random(1))
    )
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
