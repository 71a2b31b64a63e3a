"""Leaving off a connect that was cancelled: aiomqtt would keep its socket and trip over its own cancelled future."""

import asyncio

from aiomqtt import Client, MqttError


def leave_off(client: Client) -> None:
    """Close what the connect began, also what a thread has only begun to open."""
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    failed.set_exception(MqttError("left off"))
    failed.exception()  # nobody else asks
    client._connected = failed  # noqa: SLF001
    paho = client._client  # noqa: SLF001
    if paho.socket() is None:
        paho.on_socket_open = lambda _client, _userdata, opened: opened.close()
        paho.on_socket_register_write = None
    paho.disconnect()
