"""The bad link itself: what it promises to measure and to break."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.links.link import Link, Weather, link
from tests.links.link_process import link_process

BLOCK = bytes(range(256)) * 256


@asynccontextmanager
async def _echo(size_bytes: int = 0) -> AsyncIterator[int]:
    """A server that sends ``size_bytes``, or what it hears; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for _ in range(0, size_bytes, len(BLOCK)):
                writer.write(BLOCK)
                await writer.drain()
            while not size_bytes and (data := await reader.read(65_536)):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _all(made: Link) -> tuple[bytes, float]:
    """Everything until the end, and how long it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
    try:
        found = await asyncio.wait_for(reader.read(-1), 20)
    finally:
        writer.close()
    return found, loop.time() - began


async def test_nothing_is_lost_or_changed_and_all_is_counted() -> None:
    """In order, to the last byte, with jitter."""
    async with _echo(20 * len(BLOCK)) as port, link(port, Weather(delay_s=0.005, jitter_s=0.01)) as made:
        found, _ = await _all(made)
    assert found == BLOCK * 20
    assert (made.counted.down_bytes, made.counted.connections, made.counted.resets) == (len(found), 1, 0)


async def test_a_round_trip_takes_twice_the_delay() -> None:
    """At least; how much more is the machine's business."""
    async with _echo() as port, link(port, Weather(delay_s=0.05)) as made:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        loop = asyncio.get_running_loop()
        began = loop.time()
        writer.write(b"there and back")
        assert await reader.readexactly(14) == b"there and back"
        assert loop.time() - began >= 0.1
        writer.close()
    assert (made.counted.up_bytes, made.counted.down_bytes) == (14, 14)


async def test_bandwidth_is_never_exceeded() -> None:
    """What comes takes at least its time, less what the buffer of the first moment holds."""
    rate = 4_000_000
    async with _echo(32 * len(BLOCK)) as port, link(port, Weather(down_bytes_s=rate)) as made:
        found, took_s = await _all(made)
    assert took_s >= len(found) / rate * 0.98


async def test_a_reset_comes_in_mid_packet() -> None:
    """After just as many bytes as were told; the next connection counts anew."""
    async with _echo(20 * len(BLOCK)) as port, link(port, Weather(reset_after_bytes=100_001)) as made:
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.read(-1), 10)
            writer.close()
        assert made.counted.resets == 2
        assert made.counted.down_bytes == 200_002


async def test_a_hole_lets_nothing_through_until_it_ends() -> None:
    """Then all of it comes, in order: TCP sends again what was not acknowledged."""
    async with _echo() as port, link(port) as made:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        made.change(hole_down=True)
        writer.write(b"late")
        await writer.drain()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(4), 0.2)
        made.change(hole_down=False)
        assert await asyncio.wait_for(reader.readexactly(4), 5) == b"late"
        writer.close()


async def test_a_stranded_connection_is_silent_for_good_and_a_new_one_is_not() -> None:
    """As where a NAT forgot it."""
    async with _echo() as port, link(port) as made:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(b"x")
        await reader.readexactly(1)
        made.strand()
        writer.write(b"lost")
        made.change()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(4), 0.2)
        other_reader, other = await asyncio.open_connection("127.0.0.1", made.port)
        other.write(b"kept")
        assert await asyncio.wait_for(other_reader.readexactly(4), 5) == b"kept"
        writer.close()
        other.close()


async def test_connections_are_refused_and_reset_at_will() -> None:
    """New ones at once, old ones when told."""
    async with _echo() as port, link(port) as made:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(b"x")
        await reader.readexactly(1)
        made.reset()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1), 5)
        writer.close()
        made.change(refuse=True)
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1), 5)
        writer.close()


async def test_a_link_in_a_process_of_its_own() -> None:
    """The same, told over a pipe."""
    async with _echo(4 * len(BLOCK)) as port:
        with link_process(port) as made:
            reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
            assert await asyncio.wait_for(reader.read(-1), 10) == BLOCK * 4
            writer.close()
            made.change(refuse=True)
            assert made.counted().down_bytes == 4 * len(BLOCK)
