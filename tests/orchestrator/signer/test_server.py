"""A real signer behind a real socket: the same answers as without one, and nothing bad ends it."""

import asyncio
import hashlib
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import Home, Settings
from orchestrator.errors import ConflictError, OperationError, SignerAwayError, SignerNewError, UsageError
from orchestrator.signer import server as server_module
from orchestrator.signer import wire
from orchestrator.signer.client import MAX_PATH_BYTES, SignerClient
from orchestrator.signer.opening import alone_in
from orchestrator.signer.seam import AnnouncementRequest, Refusal, Refused, Signed, SigningRoom
from orchestrator.signer.server import SignerServer
from orchestrator.signer.signer import Signer
from protocol.encryption import seal_manifest, unpack_manifest, wrap_key
from protocol.errors import ContentError
from tests.integration.small_fleet import short_place
from tests.orchestrator.signer.conftest import Asker

DEADLINE_S = 10.0


@asynccontextmanager
async def behind_a_socket(signer: SigningRoom, **options: Any) -> AsyncIterator[Path]:
    """A server on a short path."""
    with short_place() as place:
        options = {"deadline_s": DEADLINE_S} | options
        async with SignerServer(signer, place / "s.sock", **options).listening():
            yield place / "s.sock"


@asynccontextmanager
async def asked(path: Path, deadline_s: float = DEADLINE_S) -> AsyncIterator[SignerClient]:
    """A client, closed at the end."""
    client = SignerClient(path, deadline_s)
    try:
        yield client
    finally:
        await asyncio.to_thread(client.close)


async def raw(path: Path, data: bytes, *, end: bool = False) -> bytes:
    """What a server says to bytes, until it closes or one frame is whole."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(data)
        if end:
            writer.write_eof()
        async with asyncio.timeout(DEADLINE_S):
            header = await reader.read(wire.HEADER.size)
            if len(header) < wire.HEADER.size:
                return b""
            return await reader.readexactly(wire.HEADER.unpack(header)[0])
    finally:
        writer.close()
        await writer.wait_closed()


async def test_every_request_over_the_socket(signer: Signer, asks: Asker) -> None:
    """One round trip for a batch; blobs and refusals come through as they are."""
    async with behind_a_socket(signer) as path, asked(path) as client:
        assert not (await asyncio.to_thread(client.begin, (0, 0), 1)).raised
        answers = await asyncio.to_thread(
            client.sign,
            [asks.announcement(), *(asks.offer(device=f"d{n}") for n in range(100)), asks.offer(device="a/b")],
        )
        assert [type(answer) for answer in answers] == [Signed] * 101 + [Refusal]
        version = await asyncio.to_thread(client.highest_timestamp)
        assert b'"timestamp"' in await asyncio.to_thread(client.bump_timestamp, 1)
        assert await asyncio.to_thread(client.highest_timestamp) == version + 1
        assert await asyncio.to_thread(client.use_director, [signer.director_keyid]) == signer.director_keyid
        with pytest.raises(ConflictError, match="none of its director keys is listed"):
            await asyncio.to_thread(client.use_director, ["ab" * 32])
        cek, sealed = seal_manifest(b"{}" * 500_000)
        package = signer._keys.package.public_key()
        sealed_key = wrap_key(cek, package, release=hashlib.sha256(sealed).hexdigest(), device="package")
        packed = await asyncio.to_thread(client.unseal, sealed_key, sealed)
        assert unpack_manifest(packed) == b"{}" * 500_000
        with pytest.raises(ContentError, match="E_KEY"):
            await asyncio.to_thread(client.unseal, sealed_key, sealed + b"x")
        await asyncio.to_thread(client.revoke, ["d1"], "stolen")
        (refusal,) = await asyncio.to_thread(client.sign, [asks.offer(device="d1")])
        assert isinstance(refusal, Refusal) and refusal.code is Refused.REVOKED
        await asyncio.to_thread(client.sign, [asks.announcement("hold", halts=1)])
        await asyncio.to_thread(client.lift, "r-1", "looked at it")
        with pytest.raises(ConflictError, match="old copy"):
            await asyncio.to_thread(client.begin, (9, 9), 1)


async def test_the_socket_is_its_owners_alone(signer: Signer) -> None:
    """0600 from the first moment; it is gone at the end."""
    async with behind_a_socket(signer) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_another_users_process_is_refused(signer: Signer, asks: Asker) -> None:
    """The kernel says who asks; the sentence names both users."""
    async with behind_a_socket(signer, uid=os.geteuid() + 1) as path, asked(path) as client:
        with pytest.raises(OperationError, match=rf"user {os.geteuid()}, expected {os.geteuid() + 1}"):
            await asyncio.to_thread(client.sign, [asks.announcement()])


BAD: dict[str, tuple[bytes, bytes]] = {
    "JSON too large": (struct.pack(">II", wire.MAX_JSON_BYTES + 1, 0), b"frame: at most"),
    "blob too large": (struct.pack(">II", 2, wire.MAX_BLOB_BYTES + 1), b"frame: at most"),
    "no JSON": (wire.frame(b"hello"), b"request: "),
    "deep JSON": (wire.frame(b"[" * 100_000), b"request: "),
    "unknown request": (wire.frame(b'{"kind":"give me the key"}'), b"request: "),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"frame: at most"),
}


@pytest.mark.parametrize(("data", "sentence"), BAD.values(), ids=BAD)
async def test_bad_frames_get_a_sentence_and_end_nothing(
    signer: Signer, asks: Asker, data: bytes, sentence: bytes
) -> None:
    """Whoever else is connected goes on."""
    async with behind_a_socket(signer) as path, asked(path) as client:
        await asyncio.to_thread(client.begin, (0, 0), 1)
        assert sentence in await raw(path, data)
        (answer,) = await asyncio.to_thread(client.sign, [asks.announcement()])
        assert isinstance(answer, Signed)


async def test_half_a_frame_and_silence_are_ended(signer: Signer) -> None:
    """A peer that leaves in the middle, or sends no more, holds nothing."""
    async with behind_a_socket(signer, deadline_s=0.2) as path, asked(path) as client:
        assert await raw(path, wire.frame(b'{"kind":"highest"}')[:10], end=True) == b""
        assert await raw(path, wire.frame(b'{"kind":"highest"}')[:10]) == b""
        assert await asyncio.to_thread(client.highest_timestamp) == 1


async def test_connections_have_a_bound(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is told so; when one has left there is room."""
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 1)
    async with behind_a_socket(signer) as path:
        async with asked(path) as first:
            await asyncio.to_thread(first.highest_timestamp)
            assert b"more than 1 connections" in await raw(path, wire.frame(b'{"kind":"highest"}'))
        async with asyncio.timeout(DEADLINE_S):
            while b'"ok"' not in await raw(path, wire.frame(b'{"kind":"highest"}')):
                await asyncio.sleep(0.01)


async def test_a_signer_that_comes_back_is_asked_again(signer: Signer, asks: Asker) -> None:
    """Nobody listens: one sentence. Restarted: the same client goes on, its old connection is no matter."""
    with short_place() as place:
        path = place / "s.sock"
        async with asked(path) as client:
            with pytest.raises(SignerAwayError, match="nobody listens there"):
                await asyncio.to_thread(client.highest_timestamp)
            for run in range(2):
                async with SignerServer(signer, path, DEADLINE_S).listening():
                    if run == 0:
                        await asyncio.to_thread(client.begin, (0, 0), 1)
                    (answer,) = await asyncio.to_thread(client.sign, [asks.announcement()])
                    assert isinstance(answer, Signed)
            with pytest.raises(SignerAwayError, match=r"start 'flagship signer'"):
                await asyncio.to_thread(client.highest_timestamp)


async def test_a_signer_that_comes_back_with_old_marks_signs_nothing(home: Home, signer: Signer, asks: Asker) -> None:
    """It is shown what came from it before; whoever never began is told to."""
    old = {name: (home.signer / name).read_bytes() for name in ("high-water.json",)}
    with short_place() as place:
        path = place / "s.sock"
        async with asked(path) as client, asked(path) as stranger:
            async with SignerServer(signer, path, DEADLINE_S).listening():
                with pytest.raises(SignerNewError, match="compared first"):
                    await asyncio.to_thread(stranger.sign, [asks.announcement()])
                await asyncio.to_thread(client.begin, (0, 0), 1)
                await asyncio.to_thread(client.sign, [asks.announcement()])
                await asyncio.to_thread(client.bump_timestamp, 1)
            signer.close()
            for name, data in old.items():
                (home.signer / name).write_bytes(data)
            (home.signer / "requests.log").unlink()
            restored = Signer.open(home, Settings(fleet="north"))
            async with SignerServer(restored, path, DEADLINE_S).listening():
                for ask in (lambda: client.sign([asks.announcement()]), lambda: client.bump_timestamp(1)):
                    with pytest.raises(ConflictError, match="old copy"):
                        await asyncio.to_thread(ask)


async def test_a_signer_that_does_not_answer_is_given_up_in_time() -> None:
    """A listener that reads and says nothing costs the deadline, once."""
    with short_place() as place, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "s.sock"))
        listener.listen()
        async with asked(place / "s.sock", 0.2) as client:
            with pytest.raises(SignerAwayError, match="no answer in time"):
                await asyncio.to_thread(client.highest_timestamp)


async def test_a_request_that_is_too_large_is_not_sent(signer: Signer, asks: Asker) -> None:
    """It would be refused there; the sentence says so here."""
    async with behind_a_socket(signer) as path, asked(path) as client:
        huge = AnnouncementRequest({**asks.announcement().draft, "more": "x" * wire.MAX_JSON_BYTES})
        with pytest.raises(OperationError, match="at most"):
            await asyncio.to_thread(client.sign, [huge])
        assert await asyncio.to_thread(client.highest_timestamp) == 1


def test_a_path_that_is_too_long_is_named(signer: Signer) -> None:
    """By both sides, before anything is made."""
    path = Path("/tmp") / ("x" * MAX_PATH_BYTES)
    for make in (lambda: SignerClient(path, 1.0), lambda: SignerServer(signer, path, 1.0)):
        with pytest.raises(UsageError, match="too long"):
            make()


async def test_a_file_in_the_way_is_left_alone(signer: Signer) -> None:
    """A stale socket is replaced, anything else is not."""
    with short_place() as place:
        path = place / "s.sock"
        path.write_text("mine")
        with pytest.raises(ConflictError, match="found a file"):
            async with SignerServer(signer, path, DEADLINE_S).listening():
                pass
        assert path.read_text() == "mine"
        path.unlink()
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        async with SignerServer(signer, path, DEADLINE_S).listening(), asked(path) as client:
            assert await asyncio.to_thread(client.highest_timestamp) == 1


def test_two_signers_on_one_home_are_refused(tmp_path: Path) -> None:
    """The second is told; when the first has ended it may go on."""
    with alone_in(tmp_path), pytest.raises(ConflictError, match="another signer"), alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        pass
