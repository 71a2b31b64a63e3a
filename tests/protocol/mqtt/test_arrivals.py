"""Messages that wait to be read: in order, bounded, and a reader that sleeps is woken."""

import asyncio
import socket
from collections.abc import Callable

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from protocol.mqtt.arrivals import Arrivals, Message

CLIENT = Client(CallbackAPIVersion.VERSION2)


def _message(payload: bytes) -> MQTTMessage:
    message = MQTTMessage(topic=b"a/b")
    message.payload, message.qos, message.retain = payload, 1, True
    return message


def test_order_and_bound() -> None:
    """The first ones stay; what comes beyond the bound is dropped and counted."""
    arrivals = Arrivals(2)
    for number in range(5):
        arrivals.take(CLIENT, None, _message(bytes([number])))
    assert list(arrivals.messages) == [Message("a/b", bytes([n]), True, 1) for n in range(2)]
    assert arrivals.dropped == 3


def test_without_a_bound() -> None:
    """0 means that nothing is dropped."""
    arrivals = Arrivals(0)
    for _ in range(5000):
        arrivals.take(CLIENT, None, _message(b"x"))
    assert (len(arrivals.messages), arrivals.dropped) == (5000, 0)


async def test_a_reader_is_woken() -> None:
    """By a message, by one that was there before it waited, and by the end of the connection."""
    arrivals = Arrivals(9)

    def come() -> None:
        arrivals.take(CLIENT, None, _message(b"x"))

    wakes: list[Callable[[], None]] = [come, arrivals.wake]
    async with asyncio.timeout(5):
        for wake in wakes:
            arrivals.messages.clear()
            waiting = asyncio.create_task(arrivals.wait())
            await asyncio.sleep(0)
            assert not waiting.done()
            wake()
            await waiting
        come()
        await arrivals.wait()


def test_a_topic_that_is_no_text() -> None:
    """A broker can send any bytes: that message is dropped and counted, the next one is read."""
    arrivals, server, socket_here = Arrivals(9), *socket.socketpair()
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = arrivals.take
    client._sock = socket_here
    server.sendall(b"\x30\x04\x00\x01\xffx" + b"\x30\x04\x00\x01ay")
    with server, socket_here:
        client.loop_read()
        client.loop_read()
        assert (list(arrivals.messages), arrivals.dropped) == ([Message("a", b"y", False, 0)], 1)
