"""Status topics on a real broker: what is new, once; and a marker that never says more than is so."""

import asyncio
from datetime import UTC, datetime

from sqlalchemy import text

from orchestrator.delivery.broker_access import service_connection
from orchestrator.delivery.status_topics import StatusTopics
from orchestrator.storage import dirty, events, published
from protocol.clock import SystemClock
from protocol.envelopes import decode
from protocol.mqtt.connection import Session, connect
from protocol.status_messages import DeviceStatus, StatusEvent, Sync
from protocol.topics import DELIVERY, Kind
from tests.orchestrator.delivery.lab import Lab, until

NOW = datetime.now(UTC)


def topics_of(lab: Lab) -> StatusTopics:
    """A new life of the status topics."""
    return StatusTopics(lab.db, lab.settings, lab.topics, SystemClock())


async def marker(lab: Lab) -> Sync | None:
    """The marker that the broker retains."""
    raw = await lab.retained(lab.topics.build(Kind.STATUS_SYNC))
    return decode(raw, Sync) if raw else None


async def happen(lab: Lab, text: str) -> None:
    """One event."""
    async with lab.db.begin() as conn:
        await events.add(conn, "tested", text, NOW)


async def mark(lab: Lab, kind: Kind, key: str) -> None:
    """One mark."""
    async with lab.db.begin() as conn:
        await dirty.mark(conn, kind, [key], datetime.now(UTC))


async def marks(lab: Lab) -> set[str]:
    """Keys that are marked."""
    async with lab.db.read() as conn:
        return {key for _, key, _ in await dirty.take(conn, "main", list(Kind), 100)}


async def test_the_marker_stays_where_the_broker_surely_is_until_it_is_healed(lab: Lab) -> None:
    """A crash in mid-healing must find the old marker, or what was not healed yet would never be."""
    await lab.add_rollout(["dev1"])
    status = topics_of(lab)
    async with connect(service_connection(lab.home, lab.settings, DELIVERY)) as session:
        status.begin(0)
        await mark(lab, Kind.STATUS_ROLLOUT, "r-1")
        await status.send(session)
        found = await marker(lab)
        assert found is not None and (found.serial, found.database) == (0, lab.db.id)
        status.healed()
        await status.send(session)
    async with lab.db.read() as conn:
        last = await published.last_serial(conn, "main")
    found = await marker(lab)
    assert found is not None
    assert found.serial == last > 0


async def test_a_new_generation_of_ingest_shows_in_the_marker(lab: Lab) -> None:
    """That is how devices learn that reports may have been lost."""
    status = topics_of(lab)
    async with connect(service_connection(lab.home, lab.settings, DELIVERY)) as session:
        await status.send(session)
        before = await marker(lab)
        async with lab.db.begin() as conn:
            await published.set_ingest_generation(conn, "main", "another")
        await status.send(session)
    after = await marker(lab)
    assert before is not None and after is not None
    assert (before.ingest != "another", after.ingest) == (True, "another")


async def test_events_are_told_once_and_history_is_not(lab: Lab) -> None:
    """Those from before the first call stand in the database, not on the topic."""
    await happen(lab, "long ago")
    status = topics_of(lab)
    topic = lab.topics.build(Kind.STATUS_EVENT)
    async with (
        lab.observer([(topic, 0)], "viewer") as viewer,
        connect(service_connection(lab.home, lab.settings, DELIVERY)) as session,
    ):
        await status.send(session)
        await happen(lab, "one")
        await happen(lab, "two" * 1000)
        await status.send(session)
        await status.send(session)
        await happen(lab, "three")
        await status.send(session)
        told: list[StatusEvent] = []
        async with asyncio.timeout(10):
            async for message in viewer.messages():
                told.append(decode(message.payload, StatusEvent))
                if told[-1].text == "three":
                    break
    assert [event.text[:3] for event in told] == ["one", "two", "thr"]
    assert len(told[1].text) == 1000, "a viewer's cap holds"


async def test_a_mark_without_a_row_is_dropped(lab: Lab) -> None:
    """A device that is gone, a rollout that never was: neither is published, neither is looked at again."""
    await mark(lab, Kind.STATUS_DEVICE, "gone")
    await mark(lab, Kind.STATUS_ROLLOUT, "never")
    async with connect(service_connection(lab.home, lab.settings, DELIVERY)) as session:
        await topics_of(lab).send(session)
    assert await marks(lab) == set()
    assert await lab.retained(lab.topics.build(Kind.STATUS_DEVICE, device="gone"), "viewer") is None


async def test_a_change_while_it_is_sent_is_sent_again(lab: Lab) -> None:
    """Between rendering and recording a device changes: the mark stays, and the next call shows the change."""
    await lab.add_rollout(["dev1"])
    await mark(lab, Kind.STATUS_DEVICE, "dev1")
    topic = lab.topics.build(Kind.STATUS_DEVICE, device="dev1")
    status = topics_of(lab)
    async with connect(service_connection(lab.home, lab.settings, DELIVERY)) as session:
        await status.send(_Interrupted(session, lab))  # type: ignore[arg-type]
        assert "dev1" in await marks(lab)
        await status.send(session)
        assert "dev1" not in await marks(lab)

        async def shows() -> bool:
            raw = await lab.retained(topic, "viewer")
            return raw is not None and decode(raw, DeviceStatus).online

        await until(shows, "the change")


class _Interrupted:
    """A session during whose first publish a device comes online."""

    def __init__(self, session: Session, lab: Lab) -> None:
        self._session = session
        self._lab = lab
        self._done = False

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish, and change what was rendered."""
        await self._session.publish(topic, payload, qos=qos, retain=retain)
        if not self._done:
            self._done = True
            async with self._lab.db.begin() as conn:
                await conn.execute(text("UPDATE devices SET online = 1"))
                await dirty.mark(conn, Kind.STATUS_DEVICE, ["dev1"], datetime.now(UTC))
