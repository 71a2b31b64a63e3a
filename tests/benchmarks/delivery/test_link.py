"""A link passes bytes on unchanged, counts them, and takes its time."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.delivery.link import Link

DEADLINE_S = 20.0


@asynccontextmanager
async def _echo_behind(link: Link) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    link.port = server.sockets[0].getsockname()[1]
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", await link.start())
        yield reader, writer
        writer.close()
        await writer.wait_closed()
    finally:
        await link.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("rate_bytes_s", [0.0, 20e6], ids=["unlimited", "limited"])
async def test_bytes_come_unchanged_and_are_counted(rate_bytes_s: float) -> None:
    """More than fits its queue goes through in order, and each way is counted by itself."""
    link, data = Link(0, rate_bytes_s), os.urandom(3_000_000)
    async with asyncio.timeout(DEADLINE_S), _echo_behind(link) as (reader, writer):
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        assert (link.up.bytes, link.down.bytes, link.bytes) == (len(data), len(data), 2 * len(data))


@pytest.mark.parametrize(
    ("link", "size", "least_s"),
    [(Link(0, 0.0, 0.2), 1, 0.2), (Link(0, 1e6, 0.0), 200_000, 0.2)],
    ids=["round trip", "rate"],
)
async def test_nothing_comes_sooner_than_the_link_allows(link: Link, size: int, least_s: float) -> None:
    """An answer takes a round trip at least, and a large one as long as its bytes take."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(DEADLINE_S), _echo_behind(link) as (reader, writer):
        since = loop.time()
        writer.write(bytes(size))
        await reader.readexactly(size)
        assert loop.time() - since >= 0.99 * least_s  # clocks have steps
