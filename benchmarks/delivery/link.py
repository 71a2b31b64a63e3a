"""A link between a device and a server: rate, delay and a count of bytes, over TCP on the loopback.

Bytes leave in order at the link's rate and arrive half a round trip later. What waits is bounded, as in a router, so a
sender that is too quick is slowed down by its own connection. All connections share the rate, each way by itself.
"""

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field

BLOCK_BYTES = 16_384
QUEUE_S = 0.1
"""How long a queue before the link may be, beyond what is on its way."""
LEAST_QUEUE_BYTES = 2**18


@dataclass(slots=True)
class Way:
    """One direction of a link: when it is free again, and what has passed."""

    free_at: float = 0.0
    bytes: int = 0


@dataclass
class Link:
    """Listens on a loopback port of its own and forwards to ``port``; rate and round trip may be changed while idle.

    Attributes:
        rate_bytes_s: Of each direction; 0 is unlimited.
    """

    port: int
    rate_bytes_s: float = 0.0
    round_trip_s: float = 0.0
    up: Way = field(default_factory=Way)
    down: Way = field(default_factory=Way)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=BLOCK_BYTES)
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def bytes(self) -> int:
        """Both ways so far."""
        return self.up.bytes + self.down.bytes

    async def close(self) -> None:
        """Stop, and drop what is open."""
        if self._server:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._forward(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_writer = None
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port, limit=BLOCK_BYTES)
            ways = (self._pass(reader, far_writer, self.up), self._pass(far_reader, writer, self.down))
            pumps = [asyncio.create_task(way) for way in ways]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass
        finally:
            for end in (writer, far_writer):
                if end:
                    end.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        queue = _Queue()
        sender = asyncio.create_task(_send(queue, writer))
        loop = asyncio.get_running_loop()
        most = max(LEAST_QUEUE_BYTES, self.rate_bytes_s * (self.round_trip_s / 2 + QUEUE_S))
        try:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(BLOCK_BYTES):
                    way.bytes += len(data)
                    start = max(loop.time(), way.free_at)
                    way.free_at = start + (len(data) / self.rate_bytes_s if self.rate_bytes_s else 0.0)
                    queue.put(way.free_at + self.round_trip_s / 2, data)
                    while queue.waiting_bytes > most and not sender.done():
                        await queue.until_less()
            while queue.parts and not sender.done():
                await queue.until_less()
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)


@dataclass(slots=True)
class _Queue:
    """What is on its way, with the time at which it arrives."""

    parts: deque[tuple[float, bytes]] = field(default_factory=deque)
    waiting_bytes: int = 0
    come: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, due: float, data: bytes) -> None:
        self.parts.append((due, data))
        self.waiting_bytes += len(data)
        self.come.set()

    async def next(self) -> tuple[float, bytes]:
        while not self.parts:
            self.come.clear()
            await self.come.wait()
        return self.parts[0]

    def pop(self) -> None:
        self.waiting_bytes -= len(self.parts.popleft()[1])
        self.gone.set()

    async def until_less(self) -> None:
        self.gone.clear()
        await self.gone.wait()


async def _send(queue: _Queue, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    try:
        while True:
            due, data = await queue.next()
            if (left := due - loop.time()) > 0:
                await asyncio.sleep(left)
            writer.write(data)
            await writer.drain()
            queue.pop()
    except ConnectionError:
        pass
    finally:
        queue.gone.set()
