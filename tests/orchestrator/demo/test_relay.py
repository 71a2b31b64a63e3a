"""The bad link of the demo: forwards, cuts, mends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from orchestrator.demo.relay import Relay


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield int(server.sockets[0].getsockname()[1])
    server.close()


async def test_a_cut_link_drops_what_is_open_and_refuses_what_is_new(port: int) -> None:
    """Until it is mended; then new connections work."""
    relay = Relay("127.0.0.1", port)
    way = await relay.start()
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", way)
        writer.write(b"one\n")
        assert await reader.readline() == b"one\n"
        relay.cut()
        with pytest.raises(ConnectionResetError):
            assert await reader.readline() == b""
            raise ConnectionResetError
        cut_reader, cut_writer = await asyncio.open_connection("127.0.0.1", way)
        with pytest.raises(ConnectionResetError):
            assert await cut_reader.read() == b""
            raise ConnectionResetError
        relay.mend()
        mended_reader, mended_writer = await asyncio.open_connection("127.0.0.1", way)
        mended_writer.write(b"two\n")
        assert await mended_reader.readline() == b"two\n"
        for end in (writer, cut_writer, mended_writer):
            end.close()
    await relay.close()
