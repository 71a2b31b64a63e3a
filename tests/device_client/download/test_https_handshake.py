"""A handshake that is cancelled leaves no socket, and none of its number unusable."""

import asyncio
import socket
import ssl

import pytest

from device_client.download.https_handshake import begin_tls


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
async def test_a_cancelled_handshake_leaves_nothing_behind(steps: int) -> None:
    """However early it is cancelled: the peer sees the end, and the next socket of that number works."""
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()
        ended.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    loop = asyncio.get_running_loop()
    async with server, asyncio.timeout(10):
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        number = sock.fileno()
        task = asyncio.create_task(begin_tls(sock, ssl.create_default_context(), "127.0.0.1", 4096, 5))
        await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ended.wait()
        while sock.fileno() != -1:
            await asyncio.sleep(0.01)
        again = socket.socket()
        assert again.fileno() == number
        again.setblocking(False)
        await loop.sock_connect(again, address)
        again.close()
