"""Reading status topics from a real broker: retained first, over broken connections, whatever stands there."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime

import pytest

from orchestrator.cli import watching
from orchestrator.cli.watching import StatusReader
from orchestrator.config import Home
from orchestrator.delivery.broker import ManagedBroker
from orchestrator.errors import UnreachableError
from protocol.mqtt.connection import ConnectionSettings, connect
from protocol.status_messages import RolloutStatus
from protocol.topics import DELIVERY, Kind, Topics
from tests.orchestrator.cli.homes import FLEET, make_home

DEADLINE_S = 20.0
R1: list[tuple[Kind, dict[str, str]]] = [(Kind.STATUS_ROLLOUT, {"rollout": "r-1"})]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home that nothing serves."""
    return make_home(tmp_path_factory.mktemp("fleet") / "home")


@asynccontextmanager
async def broker(home: Home) -> AsyncIterator[None]:
    """A running broker."""
    managed = ManagedBroker(home, home.load())
    running = asyncio.create_task(managed.run())
    try:
        await managed.ready(DEADLINE_S)
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def status(state: str) -> bytes:
    """A status of r-1."""
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    return RolloutStatus(at=at, id="r-1", release="gateway/1.1.0", state=state).model_dump_json().encode()


def as_service(home: Home, name: str) -> ConnectionSettings:
    """How a service reaches the broker."""
    settings = home.load()
    certificate, key = home.certificate(name)
    return ConnectionSettings(
        host=settings.broker.host,
        port=settings.broker.service_port,
        client_id=f"{name}-of-a-test",
        ca=home.devices_ca,
        certificate=certificate,
        key=key,
    )


async def publish(home: Home, *payloads: bytes) -> None:
    """What delivery would publish on r-1's status topic."""
    topic = Topics(FLEET).build(Kind.STATUS_ROLLOUT, rollout="r-1")
    async with connect(as_service(home, DELIVERY)) as session:
        for payload in payloads:
            await session.publish(topic, payload, retain=True)


async def test_what_is_retained_comes_first(home: Home) -> None:
    """Then every change; what cannot be read is passed over and ends nothing."""
    seen: list[str] = []
    async with broker(home), asyncio.timeout(DEADLINE_S):
        await publish(home, status("draft"))
        async with aclosing(StatusReader(home).read(R1)) as statuses:
            async for found in statuses:
                assert isinstance(found, RolloutStatus)
                seen.append(found.state)
                if found.state == "draft":
                    await publish(home, b"{", b"", b"x" * 70_000, b'{"v": "1.0"}', status("running"))
                else:
                    break
        await publish(home, b"")
    assert seen == ["draft", "running"]


async def test_following_survives_the_broker(home: Home) -> None:
    """A broker that restarts is found again; what it kept comes again."""
    seen: list[str] = []
    running, first = asyncio.Event(), asyncio.Event()

    async def follow() -> None:
        async with aclosing(StatusReader(home).follow(R1)) as statuses:
            async for found in statuses:
                assert isinstance(found, RolloutStatus)
                seen.append(found.state)
                (running if found.state == "running" else first).set()

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        async with broker(home):
            await publish(home, status("draft"))
            following = group.create_task(follow())
            await first.wait()
        async with broker(home):
            await publish(home, status("running"))
            await running.wait()
            following.cancel()
            await publish(home, b"")
    assert seen[0] == "draft"
    assert seen[-1] == "running"


async def test_no_broker_is_said_at_once(home: Home) -> None:
    """Nobody waits a minute for what never ran."""
    with pytest.raises(UnreachableError, match="start it with 'flagship serve"):
        async with asyncio.timeout(DEADLINE_S), aclosing(StatusReader(home).follow(R1)) as statuses:
            await anext(statuses)


async def test_a_broker_that_stays_away_is_given_up(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time that is allowed for it, watching ends with exit code 9."""
    monkeypatch.setattr(watching, "GIVE_UP_S", 0.2)
    async with asyncio.timeout(DEADLINE_S):
        async with broker(home):
            await publish(home, status("draft"))
            statuses = StatusReader(home).follow(R1)
            await anext(statuses)
            waiting = asyncio.ensure_future(anext(statuses))
            await asyncio.sleep(0)
        with pytest.raises(UnreachableError):
            await waiting


async def test_a_viewer_sees_no_orders(home: Home) -> None:
    """The broker hands a viewer nothing but status, whatever it subscribes to."""
    topics = Topics(FLEET)
    async with broker(home), asyncio.timeout(DEADLINE_S), connect(as_service(home, watching.VIEWER)) as session:
        await session.subscribe([("#", 1)])
        async with connect(as_service(home, DELIVERY)) as sender:
            await sender.publish(topics.build(Kind.ANNOUNCE, rollout="r-1"), b"order", retain=True)
            await sender.publish(topics.build(Kind.STATUS_ROLLOUT, rollout="r-1"), status("draft"))
        async for message in session.messages():
            assert message.topic.endswith("status/rollout/r-1")
            break
