"""A bad link: a TCP proxy with latency, jitter, bandwidth, a bounded buffer, resets in mid-packet and black holes.

    client -- read --> serialise at the bandwidth --> fly for the delay --> write -- server

It works below TLS and counts what passes: the bytes of the wire. What it is set to may be changed while it runs.
Reading stops while more waits for its turn than the buffer holds: so the sender feels the bandwidth, as at a router.
Losses are not played: on TCP they show as delay. ``python -m tests.links.link`` runs one in a process of its own.
"""

import asyncio
import contextlib
import dataclasses
import json
import socket
import struct
import sys
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

READ_BYTES = 16_384
SOCKET_BUFFER_BYTES = 131_072
"""What the kernel may hide from the link on each of its sockets."""
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad the link is.

    Attributes:
        delay_s: Each way; a round trip takes twice as long.
        jitter_s: Up to this much more, at random, without changing the order.
        up_bytes_s, down_bytes_s: Bandwidth from the client and to it; 0 is none.
        buffer_bytes: What may wait for its turn in each direction.
        reset_after_bytes: To the client, of one connection: then both ends see a reset; 0 is never.
        hole_up, hole_down: Nothing passes from the client, or to it, until this ends: then the rest comes, as TCP does.
        refuse: New connections are reset at once.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    up_bytes_s: float = 0.0
    down_bytes_s: float = 0.0
    buffer_bytes: int = 262_144
    reset_after_bytes: int = 0
    hole_up: bool = False
    hole_down: bool = False
    refuse: bool = False


@dataclass(slots=True)
class Counted:
    """What passed.

    Attributes:
        up_bytes, down_bytes: From clients and to them.
        connections, resets: Accepted, and ended by the weather.
    """

    up_bytes: int = 0
    down_bytes: int = 0
    connections: int = 0
    resets: int = 0


class Link:
    """One address in front of another. Made by ``link``."""

    def __init__(self, host: str, port: int, weather: Weather, seed: int) -> None:
        self.target = host, port
        self.weather = weather
        self.counted = Counted()
        self.random = Random(seed)
        self.port = 0
        self.live: set[_Pair] = set()

    def change(self, **changes: Any) -> None:
        """Another weather from now on; what is in the air arrives as it was sent."""
        self.weather = dataclasses.replace(self.weather, **changes)
        for pair in list(self.live):
            pair.wake()

    def reset(self) -> None:
        """End every connection with a reset."""
        for pair in list(self.live):
            self.counted.resets += 1
            pair.reset()

    def strand(self) -> None:
        """Nothing passes on the present connections ever again, and neither end is told: a NAT that forgot them."""
        for pair in self.live:
            pair.is_stranded = True

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until an end closes or the weather ends it."""
        self.counted.connections += 1
        if self.weather.refuse:
            self.counted.resets += 1
            _abort(writer)
            return
        try:
            there, answers = await asyncio.wait_for(_open(*self.target), 10)
        except OSError:
            _abort(writer)
            return
        _prepare(writer)
        pair = _Pair(writer, answers)
        self.live.add(pair)
        try:
            await pair.run(_Way(self, pair, reader, answers, is_up=True), _Way(self, pair, there, writer, is_up=False))
        finally:
            self.live.discard(pair)


class _Pair:
    """The two sockets of one client's connection."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.writers = client, server
        self.ways: tuple[_Way, ...] = ()
        self.is_stranded = False
        self._ended = asyncio.Event()

    async def run(self, *ways: "_Way") -> None:
        self.ways = ways
        tasks = [asyncio.ensure_future(part) for way in ways for part in (way.read(), way.write())]
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            # An end that has nothing more to say leaves the other one time to say the rest.
            await asyncio.wait({ended, asyncio.ensure_future(asyncio.wait(tasks[1::2]))}, return_when="FIRST_COMPLETED")
        finally:
            for task in (*tasks, ended):
                task.cancel()
            await asyncio.gather(*tasks, ended, return_exceptions=True)
            for writer in self.writers:
                writer.close()

    def reset(self) -> None:
        for writer in self.writers:
            _abort(writer)
        self._ended.set()

    def wake(self) -> None:
        for way in self.ways:
            way.room.set()


@dataclass(slots=True)
class _Way:
    """One direction."""

    link: Link
    pair: _Pair
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_up: bool
    room: asyncio.Event = field(default_factory=asyncio.Event)
    _flying: "deque[tuple[float, bytes]]" = field(default_factory=deque)
    _sent: asyncio.Event = field(default_factory=asyncio.Event)
    _free_at: float = 0.0
    _last_due: float = 0.0
    _passed: int = 0

    async def read(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await self.reader.read(READ_BYTES):
                weather, now = self.link.weather, loop.time()
                rate = weather.up_bytes_s if self.is_up else weather.down_bytes_s
                self._free_at = max(now, self._free_at) + (len(data) / rate if rate else 0.0)
                due = self._free_at + weather.delay_s + self.link.random.random() * weather.jitter_s
                self._last_due = due = max(due, self._last_due)
                self._flying.append((due, data))
                self._sent.set()
                while rate and (wait_s := self._free_at - loop.time() - weather.buffer_bytes / rate) > 0:
                    self.room.clear()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self.room.wait(), wait_s)
                await self._end_of_hole()
        self._flying.append((self._last_due, b""))
        self._sent.set()

    async def write(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while True:
                while not self._flying:
                    self._sent.clear()
                    await self._sent.wait()
                due, data = self._flying.popleft()
                if (wait_s := due - loop.time()) > 0:
                    await asyncio.sleep(wait_s)
                await self._end_of_hole()
                if not data:
                    if self.writer.can_write_eof():
                        self.writer.write_eof()
                    return
                if not self._pass(data):
                    return
                await self.writer.drain()

    def _pass(self, data: bytes) -> bool:
        """Hand on, up to where the weather resets; whether the connection lives."""
        limit = 0 if self.is_up else self.link.weather.reset_after_bytes
        ends = bool(limit) and self._passed + len(data) >= limit
        data = data[: limit - self._passed] if ends else data
        self.writer.write(data)
        self._passed += len(data)
        if self.is_up:
            self.link.counted.up_bytes += len(data)
        else:
            self.link.counted.down_bytes += len(data)
        if ends:
            self.link.counted.resets += 1
            asyncio.get_running_loop().call_later(0.01, self.pair.reset)  # what was written leaves first
        return not ends

    async def _end_of_hole(self) -> None:
        while self.pair.is_stranded or (self.link.weather.hole_up if self.is_up else self.link.weather.hole_down):
            self.room.clear()
            await self.room.wait()


@contextlib.asynccontextmanager
async def link(
    port: int, weather: Weather | None = None, *, host: str = "127.0.0.1", seed: int = 1
) -> AsyncIterator[Link]:
    """Listen on a free port of loopback in front of ``host:port``."""
    made = Link(host, port, weather or Weather(), seed)
    server = await asyncio.start_server(made.accept, "127.0.0.1", 0, limit=READ_BYTES)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for pair in list(made.live):
            pair.reset()
        while made.live:
            await asyncio.sleep(0)


async def _open(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(host, port, limit=READ_BYTES)
    _prepare(writer)
    return reader, writer


def _prepare(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    writer.transport.set_write_buffer_limits(high=READ_BYTES)


def _abort(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


async def _serve(port: int, weather: Weather) -> None:
    """Says its port, then obeys lines on standard input: a weather's changes, ``reset``, ``strand`` or ``count``."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with link(port, weather) as made:
        print(json.dumps({"port": made.port}), flush=True)
        while line := await lines.readline():
            asked = json.loads(line)
            if asked == "reset":
                made.reset()
            elif asked == "strand":
                made.strand()
            elif asked != "count":
                made.change(**asked)
            print(json.dumps(dataclasses.asdict(made.counted)), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Weather(**json.loads(sys.argv[2] if len(sys.argv) > 2 else "{}"))))
