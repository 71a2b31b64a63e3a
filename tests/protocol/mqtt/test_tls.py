"""TLS between two ends of our own: whose certificates hold, and what a clock that is not believed changes."""

import asyncio
import ssl
from datetime import timedelta
from pathlib import Path

import pytest

from protocol.mqtt.tls import TlsFilesError, tls_context
from tests.certificates import Authority

DEADLINE_S = 10.0
YEAR = timedelta(days=365)


async def handshake(place: Path, server: Authority, client: Authority, shift: timedelta, *, check_time: bool) -> None:
    """One connection to a server whose certificate's days are shifted; raises what the client's TLS raises."""
    server.issue(place / "server.pem", place / "server.key", "server", shift)
    client.issue(place / "client.pem", place / "client.key", "client")
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(place / "server.pem", place / "server.key")
    ours = tls_context(client.path, place / "client.pem", place / "client.key", check_time=check_time)

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=theirs)
    port = listener.sockets[0].getsockname()[1]
    async with listener, asyncio.timeout(DEADLINE_S):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ours)
        writer.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The fleet's own."""
    return Authority(tmp_path / "ca.pem", "fleet")


@pytest.mark.parametrize("shift", [-YEAR, YEAR], ids=["expired", "not yet valid"])
async def test_a_certificate_out_of_its_days_holds_only_without_a_clock(
    tmp_path: Path, authority: Authority, shift: timedelta
) -> None:
    """With a clock it is refused; a device in 1970 or 2099 connects all the same and can say so."""
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake(tmp_path, authority, authority, shift, check_time=True)
    await handshake(tmp_path, authority, authority, shift, check_time=False)


async def test_without_a_clock_a_foreign_authority_is_refused_as_ever(tmp_path: Path, authority: Authority) -> None:
    """Only validity periods are left out: a spoofed server stays out."""
    stranger = Authority(tmp_path / "stranger.pem", "stranger")
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake(tmp_path, stranger, authority, timedelta(), check_time=False)


def test_missing_files_are_named(tmp_path: Path, authority: Authority) -> None:
    """One sentence says which files were meant."""
    authority.issue(tmp_path / "client.pem", tmp_path / "client.key", "client")
    with pytest.raises(TlsFilesError, match=r"absent\.pem"):
        tls_context(tmp_path / "absent.pem", tmp_path / "client.pem", tmp_path / "client.key")
