"""Deltas: a former stream's range and a short body make a chunk, and nothing else does."""

import hashlib
import sys
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.chunks import MAX_BASE_BYTES, MIN_BASE_BYTES, TAG_BYTES, ChunkRef, Codec, DeltaRef
from protocol.encryption import apply_delta, encrypt_body, make_delta, open_chunk, open_delta_body
from protocol.errors import ContentError, ErrorCode

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SECRET = b"\7" * 32
BASE = Random(5).randbytes(60_000)
PLAIN = BASE[20_000:50_000] + b"a new end"


def made(plain: bytes, base: bytes, body: bytes | None = None) -> tuple[ChunkRef, DeltaRef, bytes]:
    """A chunk, its delta as a publisher makes it, and the ciphertext; the body may lie."""
    body = make_delta(plain, base, 3) if body is None else body
    cid, key, ciphertext = encrypt_body(SECRET, Codec.DELTA, body)
    ref = ChunkRef(0, len(plain), hashlib.sha256(plain).digest(), b"f" * 32, b"k" * 32, Codec.RAW, len(plain))
    return ref, DeltaRef(cid, key, len(body), 0, len(base), hashlib.sha256(base).digest()), ciphertext


def refused(ref: ChunkRef, delta: DeltaRef, ciphertext: bytes, base: bytes = BASE) -> str:
    """Why it makes no chunk."""
    with pytest.raises(ContentError) as caught:
        apply_delta(ref, delta, open_delta_body(delta, ciphertext), base)
    assert caught.value.code is ErrorCode.CHUNK
    return caught.value.detail


@given(st.binary(min_size=1, max_size=3000), st.binary(min_size=MIN_BASE_BYTES, max_size=3000))
def test_a_delta_makes_the_chunk(plain: bytes, base: bytes) -> None:
    """Whatever the two have in common."""
    ref, delta, ciphertext = made(plain, base)
    assert apply_delta(ref, delta, open_delta_body(delta, ciphertext), base) == plain


def test_what_the_base_has_costs_nothing() -> None:
    """Random bytes that stand in the base become a body of a few bytes."""
    assert len(made(PLAIN, BASE)[2]) < 100


def test_another_secret_or_codec_has_another_id() -> None:
    """A delta's body is never taken for a chunk's."""
    body = make_delta(PLAIN, BASE, 3)
    assert encrypt_body(SECRET, Codec.DELTA, body)[:2] != encrypt_body(SECRET, Codec.ZSTD, body)[:2]


def test_a_changed_base_is_found_before_it_is_used() -> None:
    """One other byte, or another length, and the delta is not applied."""
    ref, delta, ciphertext = made(PLAIN, BASE)
    assert "base" in refused(ref, delta, ciphertext, b"X" + BASE[1:])
    assert "base" in refused(ref, delta, ciphertext, BASE[:-1])


def test_a_body_that_came_changed_is_refused_by_its_name() -> None:
    """Tampering is told apart from a delta that does not fit: nothing is decrypted."""
    _, delta, ciphertext = made(PLAIN, BASE)
    with pytest.raises(ContentError, match="hash"):
        open_delta_body(delta, bytes([ciphertext[0] ^ 1]) + ciphertext[1:])
    with pytest.raises(ContentError, match="expected"):
        open_delta_body(delta, ciphertext + b"x")
    with pytest.raises(ContentError, match="tag"):
        open_delta_body(replace(delta, key=b"w" * 32), ciphertext)


def test_a_delta_of_another_chunk_is_refused() -> None:
    """Signed, but wrong: the plain hash decides."""
    _, delta, ciphertext = made(PLAIN[:-1] + b"X", BASE)
    assert "plain bytes" in refused(made(PLAIN, BASE)[0], delta, ciphertext)


def test_a_bomb_is_cut_off_at_the_chunks_length() -> None:
    """A body of a hundred bytes that would unpack to a gigabyte yields an error, not memory."""
    bomb = zstd.compress(bytes(2**26), options={zstd.CompressionParameter.window_log: 20})
    assert len(bomb) < 10_000
    assert "more than" in refused(*made(PLAIN, BASE, bomb))
    wide = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    assert "within bounds" in refused(*made(PLAIN, BASE, wide.compress(PLAIN) + wide.flush()))


def test_a_delta_is_no_body_of_a_chunk() -> None:
    """Where a chunk says that it is a delta, it is refused."""
    cid, key, ciphertext = encrypt_body(SECRET, Codec.DELTA, PLAIN)
    ref = ChunkRef(0, len(PLAIN), hashlib.sha256(PLAIN).digest(), cid, key, Codec.DELTA, len(ciphertext) - TAG_BYTES)
    with pytest.raises(ContentError, match="it is a delta"):
        open_chunk(ref, ciphertext)


@pytest.mark.parametrize("size", [MIN_BASE_BYTES - 1, MAX_BASE_BYTES + 1])
def test_a_base_is_never_too_short_nor_larger_than_a_device_takes(size: int) -> None:
    """The publisher learns it when it makes the delta."""
    with pytest.raises(ValueError, match="base"):
        make_delta(PLAIN, bytes(size), 3)
