"""Sockets that HTTP clients come in by, and the servers behind them. ``service.py`` runs them in its task group."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from orchestrator.errors import ConflictError

STOP_S = 5


@contextlib.contextmanager
def listening(section: str, host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket without delay; ``section`` of config.toml is named where the port is taken.

    Raises:
        ConflictError: Somebody listens there, or this machine has no such address.
    """
    try:
        listener = socket.create_server((host, port), backlog=128)
    except OSError as error:
        raise ConflictError(
            f"{section}: cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}; "
            f"stop what listens there, or set {section}.port in config.toml"
        ) from error
    with listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener


async def run_app(
    app: ASGIApp,
    listener: socket.socket,
    *,
    certificate: tuple[Path, Path] | None = None,
    connections: int = 100,
    keep_alive_s: int = 5,
) -> None:
    """Serve until cancelled.

    Args:
        certificate: (certificate, key) for TLS; plain HTTP without.
        connections: Clients beyond them are told 503.
        keep_alive_s: How long a client may say nothing between two requests.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=STOP_S,
        timeout_keep_alive=keep_alive_s,
        limit_concurrency=connections,
        h11_max_incomplete_event_size=65_536,
        server_header=False,
        ssl_certfile=certificate[0] if certificate else None,
        ssl_keyfile=certificate[1] if certificate else None,
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    try:
        await server._serve([listener])  # noqa: SLF001 - serve() takes the signal handlers, which are ours
    except asyncio.CancelledError:
        server.should_exit = True
        with contextlib.suppress(Exception):
            await server.shutdown([listener])
        raise
