"""TLS over a socket that is connected, in a way that can be cancelled at any instant and forgets nothing.

Once asyncio has the socket, it is asyncio's: closed by us, its number would stay registered, and the next socket of
that number would fail. Nor is the handshake itself cancelled: at its very beginning asyncio would lose the socket.
"""

import asyncio
import contextlib
import socket
import ssl

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def begin_tls(
    sock: socket.socket, context: ssl.SSLContext, host: str, read_bytes: int, timeout_s: float
) -> Streams:
    """Make the handshake; the socket is closed where it fails or the caller is cancelled, a moment later.

    Args:
        host: What the certificate must name.
        read_bytes: Buffer of the reader.

    Raises:
        OSError, TimeoutError: As asyncio has them.
    """
    handshake = asyncio.ensure_future(
        asyncio.open_connection(
            sock=sock, ssl=context, server_hostname=host, limit=read_bytes, ssl_handshake_timeout=timeout_s
        )
    )
    try:
        return await asyncio.shield(handshake)
    except BaseException:
        handshake.add_done_callback(_hang_up)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        raise


def _hang_up(handshake: asyncio.Future[Streams]) -> None:
    if not handshake.cancelled() and handshake.exception() is None:
        handshake.result()[1].transport.abort()
