"""A faulty hand between device and broker: PUBLISHes are lost, doubled, late or damaged, and neither end is told.

It ends TLS on the device's side with the broker's own certificate and speaks to the broker as that device: tests own
all keys. Packets are taken apart as MQTT 3.1.1 and 5.0 both frame them (2.1); of a PUBLISH only topic, id and payload
are looked at. What is dropped is acknowledged towards the broker, as by a client whose queue is full.
"""

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random

from device_client.config import DeviceHome
from device_client.identity_files import IdentityFiles
from orchestrator.config import Home
from protocol.mqtt.tls import tls_context

CONNECT, PUBLISH, PUBACK, SUBACK = 1, 3, 4, 9
HELD_S = 0.3


@dataclass(slots=True)
class Faults:
    """What goes wrong, in shares of the PUBLISHes of one kind of topic; may be changed while it runs.

    Attributes:
        topic: Part of the topics that are meant.
        drop, duplicate, hold_back, corrupt: Shares from 0 to 1; each PUBLISH has one fate.
        first: Fates of the first ones, before shares count.
        suback_drop_each: Each so-many-th SUBACK never comes; 0 is none.
        suback_late_s: SUBACKs come this much later, after what they announce.
        split_bytes: Everything goes to the device in pieces of this size; 0 is as it comes.
    """

    topic: bytes = b"/chunk/"
    drop: float = 0.0
    duplicate: float = 0.0
    hold_back: float = 0.0
    corrupt: float = 0.0
    first: tuple[str, ...] = ()
    suback_drop_each: int = 0
    suback_late_s: float = 0.0
    split_bytes: int = 0


@dataclass
class MqttFaults:
    """One device's way to the broker; made by ``mqtt_faults``.

    Attributes:
        fates, fate_bytes: How many PUBLISHes, and bytes of them, had which fate; "pass" is none.
        passed: How often each topic's payload reached the device whole.
    """

    faults: Faults
    random: Random
    port: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    fate_bytes: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    seen: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def fate(self) -> str:
        """Of the next PUBLISH that is meant."""
        self.seen += 1
        faults = self.faults
        if self.seen <= len(faults.first):
            return faults.first[self.seen - 1]
        at = self.random.random()
        for name in ("drop", "duplicate", "hold_back", "corrupt"):
            share: float = getattr(faults, name)
            if at < share:
                return name
            at -= share
        return "pass"


class _Conversation:
    """One connection of the device."""

    def __init__(self, hand: MqttFaults, device: asyncio.StreamWriter, broker: asyncio.StreamWriter) -> None:
        self.hand = hand
        self.device = device
        self.broker = broker
        self.held: list[bytes] = []
        self.swallow: Counter[bytes] = Counter()
        self.is_5 = False
        self.late: set[asyncio.Task[None]] = set()

    async def upward(self, reader: asyncio.StreamReader) -> None:
        async for head, body in _packets(reader):
            if head >> 4 == CONNECT:
                self.is_5 = body[6] == 5
            if head >> 4 == PUBACK and self.swallow[body[:2]] > 0:
                self.swallow[body[:2]] -= 1
                continue
            self.broker.write(_frame(head, body))
            await self.broker.drain()

    async def downward(self, reader: asyncio.StreamReader) -> None:
        async for head, body in _packets(reader):
            if head >> 4 == PUBLISH:
                await self._publish(head, body)
            elif head >> 4 == SUBACK:
                await self._suback(head, body)
            else:
                await self._send(_frame(head, body))

    async def _suback(self, head: int, body: bytes) -> None:
        faults = self.hand.faults
        self.hand.fates["suback"] += 1
        if faults.suback_drop_each and self.hand.fates["suback"] % faults.suback_drop_each == 0:
            self.hand.fates["suback_drop"] += 1
        elif faults.suback_late_s:
            self._later(faults.suback_late_s, _frame(head, body))
        else:
            await self._send(_frame(head, body))

    async def _publish(self, head: int, body: bytes) -> None:
        topic, mid, start = _take_apart(head, body, is_5=self.is_5)
        fate = self.hand.fate() if self.hand.faults.topic in topic and len(body) > start else "pass"
        packet = _frame(head, body)
        self.hand.fates[fate] += 1
        self.hand.fate_bytes[fate] += len(packet)
        match fate:
            case "drop":
                await self._acknowledge(mid)
                return
            case "hold_back":
                self.hand.passed[topic.decode()] += 1
                self._later(HELD_S, packet)
                return
            case "corrupt":
                place = start + self.hand.random.randrange(len(body) - start)
                damaged = body[:place] + bytes([body[place] ^ 0x55]) + body[place + 1 :]
                await self._send(_frame(head, damaged))
                return
            case "duplicate":
                self.swallow[mid] += 1
                await self._send(packet)
                packet = _frame(head | 8 if mid else head, body)
        self.hand.passed[topic.decode()] += 1
        await self._send(packet)

    async def _acknowledge(self, mid: bytes) -> None:
        if mid:
            self.broker.write(_frame(PUBACK << 4, mid))
            await self.broker.drain()

    def _later(self, wait_s: float, packet: bytes) -> None:
        async def send() -> None:
            await asyncio.sleep(wait_s)
            with contextlib.suppress(OSError):
                await self._send(packet)

        task = asyncio.ensure_future(send())
        self.late.add(task)
        task.add_done_callback(self.late.discard)

    async def _send(self, packet: bytes) -> None:
        size = self.hand.faults.split_bytes or len(packet)
        for start in range(0, len(packet), size):
            self.device.write(packet[start : start + size])
            if self.hand.faults.split_bytes:
                await asyncio.sleep(0)
        await self.device.drain()


@contextlib.asynccontextmanager
async def mqtt_faults(
    home: Home, device: DeviceHome, port: int, faults: Faults | None = None, seed: int = 1
) -> AsyncIterator[MqttFaults]:
    """Stand between a device and the broker of a fleet's home that listens for devices on ``port``."""
    hand = MqttFaults(faults or Faults(), Random(seed))
    files = IdentityFiles(device)
    as_broker = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    as_broker.load_cert_chain(*home.certificate("broker"))
    as_device = tls_context(files.ca, files.certificate, files.device_key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hand.connections += 1
        hand.writers.add(writer)
        broker: asyncio.StreamWriter | None = None
        try:
            answers, broker = await asyncio.open_connection("127.0.0.1", port, ssl=as_device)
            talk = _Conversation(hand, writer, broker)
            parts = [asyncio.ensure_future(talk.upward(reader)), asyncio.ensure_future(talk.downward(answers))]
            try:
                await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for part in (*parts, *talk.late):
                    part.cancel()
                await asyncio.gather(*parts, *talk.late, return_exceptions=True)
        except OSError:
            pass
        finally:
            hand.writers.discard(writer)
            for one in (writer, broker):
                if one is not None:
                    one.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=as_broker)
    hand.port = server.sockets[0].getsockname()[1]
    try:
        yield hand
    finally:
        server.close()
        for writer in list(hand.writers):
            writer.transport.abort()
        while hand.writers:
            await asyncio.sleep(0)


async def _packets(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, bytes]]:
    with contextlib.suppress(asyncio.IncompleteReadError, OSError, ssl.SSLError):
        while True:
            head = (await reader.readexactly(1))[0]
            length = shift = 0
            while True:
                part = (await reader.readexactly(1))[0]
                length |= (part & 0x7F) << shift
                shift += 7
                if not part & 0x80:
                    break
            yield head, await reader.readexactly(length)


def _take_apart(head: int, body: bytes, *, is_5: bool) -> tuple[bytes, bytes, int]:
    """(topic, packet id or nothing, where the payload begins) of a PUBLISH."""
    end = 2 + int.from_bytes(body[:2], "big")
    start = end + (2 if head & 6 else 0)
    mid = body[end:start]
    if is_5:
        length = shift = 0
        while True:
            part = body[start]
            start += 1
            length |= (part & 0x7F) << shift
            shift += 7
            if not part & 0x80:
                break
        start += length
    return body[2:end], mid, start


def _frame(head: int, body: bytes) -> bytes:
    sizes, left = bytearray(), len(body)
    while True:
        left, part = divmod(left, 128)
        sizes.append(part | 0x80 if left else part)
        if not left:
            return bytes([head]) + bytes(sizes) + body
