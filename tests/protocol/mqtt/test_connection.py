"""One session over a real mosquitto: certificates, refusals, losses, bounds."""

import asyncio
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiomqtt import Will
from hypothesis import given
from hypothesis import strategies as st

from protocol.mqtt.connection import (
    ConnectionLost,
    Message,
    PublishRefused,
    Session,
    backoff,
    connect,
)
from tests.protocol.mqtt.conftest import free_port

DEADLINE_S = 10.0


async def take(session: Session, count: int) -> list[Message]:
    """The next messages, within the deadline."""
    taken: list[Message] = []
    async with asyncio.timeout(DEADLINE_S):
        async for message in session.messages():
            taken.append(message)
            if len(taken) == count:
                break
    return taken


@pytest.fixture
async def session(broker: Any) -> AsyncIterator[Session]:
    """A session over TLS."""
    async with connect(broker.settings("one")) as live:
        yield live


async def test_what_is_published_arrives_in_order(session: Session) -> None:
    """QoS 1 over TLS: every message arrives with its topic, bytes and quality of service."""
    await session.subscribe([("open/a", 1)])
    for number in range(20):
        await session.publish("open/a", bytes([number]))
    assert await take(session, 20) == [Message("open/a", bytes([n]), False, 1) for n in range(20)]


async def test_a_retained_message_greets_a_later_subscriber(broker: Any, session: Session) -> None:
    """What is retained arrives with its flag; an empty payload clears it."""
    await session.publish("open/kept", b"state", retain=True)
    async with connect(broker.settings("two")) as other:
        await other.subscribe([("open/kept", 1)])
        assert await take(other, 1) == [Message("open/kept", b"state", True, 1)]
        await session.publish("open/kept", b"", retain=True)
        assert (await take(other, 1))[0].payload == b""


async def test_mqtt_3_serves_as_well(broker: Any) -> None:
    """The protocol needs nothing that MQTT 3.1.1 lacks."""
    async with connect(broker.settings("three", mqtt5=False)) as old:
        await old.subscribe([("open/old", 1), ("open/older", 0)])
        await old.publish("open/old", b"x")
        assert (await take(old, 1))[0].payload == b"x"


async def test_after_unsubscribing_nothing_more_arrives(session: Session) -> None:
    """A closed window stays closed."""
    await session.subscribe([("open/first", 1), ("open/second", 1)])
    await session.unsubscribe(["open/first"])
    await session.publish("open/first", b"unheard")
    await session.publish("open/second", b"heard")
    assert [message.payload for message in await take(session, 1)] == [b"heard"]


async def test_a_refusal_is_told_to_its_own_publish(broker: Any) -> None:
    """Many at once on one session: what was taken does not hear of what was not, and the other way round."""
    async with connect(broker.settings("intruder")) as intruder:
        topics = [*(f"open/{number}" for number in range(10)), "guarded/x"]
        told = await asyncio.gather(*(intruder.publish(one, b"x") for one in topics), return_exceptions=True)
    assert told[:-1] == [None] * 10
    assert isinstance(told[-1], PublishRefused)


async def test_a_refused_publish_is_an_error(broker: Any) -> None:
    """aiomqtt drops the PUBACK's reason; a refusal would look like success.

    The session gets nothing more to do: mosquitto 2.0.11 ends a TLS connection after refusing a PUBLISH.
    """
    async with connect(broker.settings("intruder")) as intruder:
        with pytest.raises(PublishRefused, match=r"guarded/x: the broker answered Not authorized"):
            await intruder.publish("guarded/x", b"x")


async def test_messages_beyond_the_bound_are_dropped_and_counted(broker: Any, session: Session) -> None:
    """A reader that is too slow loses messages, and knows how many; memory stays bounded."""
    async with connect(broker.settings("slow", max_queued_incoming=5)) as slow:
        await slow.subscribe([("open/flood", 1), ("open/end", 1)])
        for number in range(12):
            await session.publish("open/flood", bytes([number]))
        async with asyncio.timeout(DEADLINE_S):
            while slow.dropped < 7:
                await asyncio.sleep(0.01)
        assert [message.payload for message in slow.drain()] == [bytes([n]) for n in range(5)]
        assert slow.dropped == 7


async def test_draining_never_waits(session: Session) -> None:
    """With nothing arrived, draining gives nothing."""
    assert list(session.drain()) == []


async def test_small_packets_are_not_held_back(session: Session) -> None:
    """TCP_NODELAY is set: an acknowledgement does not wait for another one."""
    paho_socket: Any = session._client._client.socket()
    assert paho_socket is not None
    assert paho_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_the_will_speaks_when_a_client_dies(broker: Any, session: Session) -> None:
    """A connection that breaks off sends the will; one that ends in order does not."""
    await session.subscribe([("open/wills", 1)])
    async with connect(broker.settings("orderly", will=Will("open/wills", b"orderly", qos=1))):
        pass
    async with connect(broker.settings("dying", will=Will("open/wills", b"dying", qos=1))) as dying:
        paho_socket: Any = dying._client._client.socket()
        assert paho_socket is not None
        paho_socket.shutdown(socket.SHUT_RDWR)
        assert [message.payload for message in await take(session, 1)] == [b"dying"]


async def test_a_taken_over_client_id_ends_the_former_session(broker: Any) -> None:
    """The newer connection of a client id wins; the former one learns that it is over."""
    settings = broker.settings("twin")
    async with connect(settings) as former, connect(settings) as newer:
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(former.wait_lost(), DEADLINE_S)
        await newer.publish("open/twin", b"x")


async def test_a_broker_that_dies_ends_every_wait(mortal_broker: Any) -> None:
    """Reading, waiting, publishing and subscribing all say that the connection is gone, and none hangs."""
    async with connect(mortal_broker.settings("one")) as session:
        await session.subscribe([("open/#", 1)])
        reading = asyncio.create_task(take(session, 1))
        await asyncio.sleep(0)
        await asyncio.to_thread(mortal_broker.stop)
        with pytest.raises(ConnectionLost, match=r"127\.0\.0\.1"):
            await reading
        for request in (
            session.publish("open/x", b"x"),
            session.subscribe([("open/x", 1)]),
            session.unsubscribe(["open/x"]),
            session.wait_lost(),
        ):
            with pytest.raises(ConnectionLost):
                await asyncio.wait_for(request, DEADLINE_S)


async def test_what_arrived_before_the_end_is_still_read(mortal_broker: Any) -> None:
    """The end of the connection does not swallow messages."""
    async with connect(mortal_broker.settings("one")) as session:
        await session.subscribe([("open/last", 1)])
        await session.publish("open/last", b"word")
        async with asyncio.timeout(DEADLINE_S):
            while not session._arrivals.messages:
                await asyncio.sleep(0.01)
        await asyncio.to_thread(mortal_broker.stop)
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(session.wait_lost(), DEADLINE_S)
        assert (await take(session, 1))[0].payload == b"word"


async def test_a_closed_session_refuses_work(broker: Any) -> None:
    """After its block a session only says that it is closed."""
    async with connect(broker.settings("brief")) as session:
        pass
    with pytest.raises(ConnectionLost, match="closed"):
        await session.publish("open/x", b"x")


async def lost(settings: Any) -> str:
    """Why no connection comes about, within the deadline."""
    with pytest.raises(ConnectionLost) as caught:
        async with asyncio.timeout(DEADLINE_S), connect(settings):
            pass
    return str(caught.value)


async def test_nobody_listens(broker: Any, unused_tcp_port: int) -> None:
    """A refused connection names the address."""
    assert f"127.0.0.1:{unused_tcp_port}" in await lost(broker.settings("one", port=unused_tcp_port))


async def test_a_silent_broker_times_out(broker: Any, silent_port: int) -> None:
    """A peer that accepts and says nothing costs the timeout and no more."""
    await lost(broker.settings("one", port=silent_port, timeout_s=0.5))


async def test_a_cancellation_while_a_session_ends_is_not_lost(broker: Any) -> None:
    """The connection fails and the owner is cancelled at once: it ends, instead of connecting again for ever."""

    async def own() -> None:
        async with connect(broker.settings("owner")):
            asyncio.get_running_loop().call_soon(owner.cancel)
            raise ConnectionLost("the broker died")

    owner = asyncio.create_task(own())
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.wait({owner})
    assert owner.cancelled()


async def test_a_connect_that_is_left_off_leaves_nothing(broker: Any) -> None:
    """Cancelled while the broker has not answered: the socket is closed, and no callback fails later."""
    certificate, key = broker.authority.issue("server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    heard, closed, failures = asyncio.Event(), asyncio.Event(), []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        heard.set()
        while await reader.read(1000):
            pass
        closed.set()
        writer.transport.abort()

    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]

        async def enter() -> None:
            async with connect(broker.settings("patient", port=port)):
                raise AssertionError("nobody answered")

        entering = asyncio.create_task(enter())
        async with asyncio.timeout(10):
            await heard.wait()
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        async with asyncio.timeout(5):
            await closed.wait()
    assert failures == []


async def test_a_broker_without_tls_is_not_talked_to(broker: Any) -> None:
    """There is no way down from TLS: the listener without it is refused."""
    await lost(broker.settings("one", port=broker.plain_port, timeout_s=2.0))


async def test_a_foreign_broker_is_refused(broker: Any, tmp_path: Path) -> None:
    """A broker whose certificate is from another authority is not talked to."""
    other = type(broker.authority)(tmp_path, "other CA")
    assert "certificate verify failed" in await lost(broker.settings("one", ca=other.certificate))


async def test_a_foreign_client_is_refused(broker: Any, tmp_path: Path) -> None:
    """A client whose certificate is from another authority does not get in."""
    certificate, key = type(broker.authority)(tmp_path, "other CA").issue("one")
    await lost(broker.settings("one", certificate=certificate, key=key))


async def test_a_broker_of_another_name_is_refused(broker: Any) -> None:
    """The certificate must hold for the address that was dialled."""
    await lost(replace(broker.settings("one"), host="localhost"))


async def test_a_refused_connection_is_said_in_words(broker: Any) -> None:
    """What the system says, without the number of the error."""
    port = free_port()
    assert await lost(replace(broker.settings("one"), port=port)) == f"broker 127.0.0.1:{port}: Connection refused"


async def test_a_connect_that_is_given_up_leaves_nothing_behind(broker: Any) -> None:
    """Cancelled before the CONNACK: the socket is closed, and nothing fails when the peer goes on."""
    settings, complaints = broker.settings("one"), []
    certificate, key = broker.authority.issue("silent")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    asked, ended = asyncio.Event(), asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        asked.set()
        await reader.read()
        ended.set()
        writer.close()

    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        connecting = asyncio.create_task(connect(replace(settings, port=port)).__aenter__())
        await asyncio.wait_for(asked.wait(), DEADLINE_S)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await asyncio.wait_for(ended.wait(), DEADLINE_S)
    assert complaints == []


async def test_missing_files_are_named(broker: Any, tmp_path: Path) -> None:
    """A missing certificate or key is one sentence that says which files were meant."""
    settings = broker.settings("one", key=tmp_path / "absent.key")
    assert "absent.key" in await lost(settings)


@given(st.integers(0, 10_000), st.integers())
def test_backoff_grows_jitters_and_is_bounded(attempt: int, seed: int) -> None:
    """However often it failed, the wait is at least a tenth of the base and at most the cap."""
    wait = backoff(attempt, Random(seed), base_s=1.0, cap_s=60.0)
    assert 0.1 <= wait <= 60.0
    assert wait <= max(0.1, 2.0**attempt if attempt < 10 else 60.0)


async def test_a_publish_under_way_ends_with_the_connection(mortal_broker: Any) -> None:
    """It does not wait for its own time-out, which keeps a device from connecting again."""
    async with connect(mortal_broker.settings("one", timeout_s=60.0)) as session:
        mortal_broker.process.send_signal(signal.SIGSTOP)
        publishing = asyncio.create_task(session.publish("open/x", b"x"))
        await asyncio.sleep(0)
        mortal_broker.process.kill()
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(publishing, DEADLINE_S)
