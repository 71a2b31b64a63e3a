"""The trust topics on a real broker: in order, each read back, renewed in time, and only what is new."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from tuf.api.metadata import Metadata, Timestamp

from orchestrator.config import TimingSettings
from orchestrator.delivery.broker_access import service_connection
from orchestrator.delivery.readback import ReadBack
from orchestrator.delivery.trust_publishing import TrustPublishing
from orchestrator.errors import OperationError
from orchestrator.signer.signer import TIMESTAMP_LIFE
from orchestrator.storage import published
from protocol.clock import ManualClock
from protocol.mqtt.connection import Session, connect
from protocol.topics import DELIVERY, Kind
from tests.orchestrator.delivery.lab import Lab

DAY_S = 86_400


@contextlib.asynccontextmanager
async def publishing(lab: Lab, clock: ManualClock) -> AsyncIterator[tuple[TrustPublishing, Session]]:
    """The trust topics with a session whose messages are read."""
    readback = ReadBack()
    async with connect(service_connection(lab.home, lab.settings, DELIVERY)) as session:

        async def read() -> None:
            async for message in session.messages():
                readback.deliver(message)

        task = asyncio.create_task(read())
        try:
            part = TrustPublishing(lab.db, lab.home, lab.settings, lab.signer, lab.topics, readback, clock)
            yield part, session
        finally:
            task.cancel()


async def serials(lab: Lab) -> dict[Kind, int]:
    """The order in which the trust topics were recorded last."""
    async with lab.db.read() as conn:
        items, _ = await published.page(conn, "main")
    return {item.kind: place for place, item in enumerate(items)}


async def version(lab: Lab) -> int:
    """Of the timestamp that the broker retains."""
    raw = await lab.retained(lab.topics.build(Kind.TRUST_TIMESTAMP)) or b""
    return Metadata[Timestamp].from_bytes(raw).signed.version


def clock() -> ManualClock:
    """Now; it moves when it is told to."""
    return ManualClock(datetime.now(UTC))


async def test_roots_then_bundle_then_timestamp(lab: Lab) -> None:
    """Whoever sees the timestamp finds the bundle that it names."""
    topics = [lab.topics.build(Kind.TRUST_ROOT, n="1"), lab.topics.build(Kind.TRUST_BUNDLE),
              lab.topics.build(Kind.TRUST_TIMESTAMP)]  # fmt: skip
    async with lab.observer([(topic, 1) for topic in topics]) as observer:
        async with publishing(lab, clock()) as (part, session):
            await part.publish(session)
        arrived: list[str] = []
        async with asyncio.timeout(10):
            async for message in observer.messages():
                arrived.append(message.topic)
                if len(arrived) == 3:
                    break
    assert arrived == topics
    assert list(await serials(lab)) == [Kind.TRUST_ROOT, Kind.TRUST_BUNDLE, Kind.TRUST_TIMESTAMP]


async def test_what_is_there_is_passed_over_unless_it_is_asked_for(lab: Lab) -> None:
    """A second call sends nothing; one after the broker was wiped sends all."""
    async with publishing(lab, clock()) as (part, session):
        await part.publish(session)
        async with lab.db.read() as conn:
            first = await published.last_serial(conn, "main")
        await part.publish(session)
        async with lab.db.read() as conn:
            assert await published.last_serial(conn, "main") == first
        await part.publish(session, force=True)
        async with lab.db.read() as conn:
            assert await published.last_serial(conn, "main") == 2 * first


async def test_the_timestamp_is_renewed_in_time_and_only_then(lab: Lab) -> None:
    """Nothing on the day it was signed; a day later a higher version, and nothing else is published."""
    time = clock()
    async with publishing(lab, time) as (part, session):
        await part.publish(session)
        before, order = await version(lab), await serials(lab)
        await part.keep_fresh(session)
        assert await version(lab) == before
        time.advance(DAY_S + 60)
        await part.keep_fresh(session)
        assert await version(lab) == before + 1
        assert await serials(lab) == order, "bundle and root were not sent again"


async def test_two_at_once_do_not_lower_the_timestamp(lab: Lab) -> None:
    """An import and the upkeep renew at the same moment: what is retained is the highest that was signed."""
    time = clock()
    async with publishing(lab, time) as (part, session):
        await part.publish(session)
        time.advance(DAY_S + 60)
        await asyncio.gather(part.publish(session), part.keep_fresh(session), part.publish(session, force=True))
    assert await version(lab) == lab.signer.highest_timestamp()


@pytest.mark.parametrize("gone", ["1.snapshot.json", "1.targets.json", "timestamp.json"])
async def test_an_incomplete_folder_is_one_sentence(lab: Lab, gone: str) -> None:
    """Nothing is published of half a set."""
    (lab.home.trust / gone).unlink()
    async with publishing(lab, clock()) as (part, session):
        with pytest.raises(OperationError, match="restore"):
            await part.publish(session)
    assert await lab.retained(lab.topics.build(Kind.TRUST_BUNDLE)) is None


def test_a_day_is_shorter_than_a_timestamp_lives() -> None:
    """Renewal by the default setting leaves days for a broker that is away."""
    assert timedelta(seconds=TimingSettings().timestamp_renew_s) * 2 < TIMESTAMP_LIFE
