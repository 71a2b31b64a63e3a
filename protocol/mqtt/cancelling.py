"""Cancelling what waits in aiomqtt: it neither loses the cancellation nor leaves a socket behind."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable
from typing import TypeVar

from aiomqtt import Client, MqttError

T = TypeVar("T")


async def whole(call: Awaitable[T]) -> T:
    """Await a call of aiomqtt's; a cancellation that comes together with its answer is raised all the same.

    ``asyncio.wait_for`` of Python 3.11, on which aiomqtt's calls stand, then returns the answer and no more is heard
    of the cancellation: the task would go on for ever.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        return await call
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


def leave_off(client: Client) -> None:
    """Close what a cancelled connect began, also what a thread has only begun to open.

    aiomqtt would keep the socket, and trip over its own cancelled future at the next event.
    """
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    failed.set_exception(MqttError("left off"))
    failed.exception()  # nobody else asks
    client._connected = failed  # noqa: SLF001
    paho = client._client  # noqa: SLF001
    if paho.socket() is None:
        paho.on_socket_open = lambda _client, _userdata, opened: opened.close()
        paho.on_socket_register_write = None
    paho.disconnect()


def reset(client: Client) -> None:
    """Cut a connection: paho sees its end at once, and closing it throws away what waits to be sent."""
    opened = client._client.socket()  # noqa: SLF001
    if isinstance(opened, socket.socket):
        with contextlib.suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.socket.shutdown(opened, socket.SHUT_RDWR)  # that of SSLSocket would go on in the clear
