"""A broker that loses messages: between agent and broker, with both ends' certificates, it drops some PUBLISHes.

What is dropped is acknowledged to the broker, as if it had come. Only what goes down to the device is dropped.
"""

import asyncio
import contextlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from benchmarks.delivery.raw_clients import Identity

PUBLISH, PUBACK = 3, 4
BLOCK_BYTES = 65_536


@dataclass
class LossyBroker:
    """Listens on a loopback port of its own.

    Attributes:
        certificate, key: The broker's own.
        device: Under whose name it connects.
        ratio: Of PUBLISHes that are lost.
    """

    port: int
    certificate: Path
    key: Path
    device: Identity
    ratio: float
    dropped: int = 0
    passed: int = 0
    _random: Random = field(default_factory=lambda: Random(1))
    _server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; returns the port."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.device.ca))
        context.load_cert_chain(str(self.certificate), str(self.key))
        context.verify_mode = ssl.CERT_REQUIRED
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=context)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening."""
        if self._server:
            self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.device.context(), server_hostname="127.0.0.1"
        )
        pumps = [
            asyncio.create_task(_pass(reader, far_writer)),
            asyncio.create_task(self._pick(far_reader, writer, far_writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            writer.close()
            far_writer.close()

    async def _pick(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head, body = await _packet(reader)
                if head[0] >> 4 == PUBLISH and b"/chunk/" in body[:200]:
                    if self._random.random() < self.ratio:
                        self.dropped += 1
                        at = 2 + int.from_bytes(body[:2], "big")
                        if head[0] & 6:
                            back.write(bytes((PUBACK << 4, 2)) + body[at : at + 2])
                        continue
                    self.passed += 1
                writer.write(head + body)
                await writer.drain()


async def _packet(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head, length, shift = bytearray(await reader.readexactly(1)), 0, 0
    while True:
        byte = (await reader.readexactly(1))[0]
        head.append(byte)
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return bytes(head), await reader.readexactly(length)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(BLOCK_BYTES):
            writer.write(data)
            await writer.drain()
