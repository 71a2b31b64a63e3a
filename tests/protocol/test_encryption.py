"""Bodies, manifests and content keys: what was changed on the way is refused by its code."""

import hashlib
import sys
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from protocol.chunks import ChunkRef, Codec
from protocol.encryption import (
    encrypt_body,
    make_body,
    open_chunk,
    open_manifest,
    seal_manifest,
    unwrap_key,
    wrap_key,
)
from protocol.errors import ContentError, ErrorCode

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SECRET = b"\7" * 32
RELEASE = "cd" * 32


def sealed(plain: bytes, codec: Codec | None = None, body: bytes | None = None) -> tuple[ChunkRef, bytes]:
    """A chunk as a publisher makes it; codec and body may lie."""
    made_codec, made_body = make_body(plain, 3)
    codec, body = codec or made_codec, made_body if body is None else body
    cid, key, ciphertext = encrypt_body(SECRET, codec, body)
    digest = hashlib.sha256(plain).digest()
    return ChunkRef(0, len(plain), digest, cid, key, codec, len(body)), ciphertext


def refused(ref: ChunkRef, ciphertext: bytes) -> str:
    """Why a chunk is refused."""
    with pytest.raises(ContentError) as caught:
        open_chunk(ref, ciphertext)
    assert caught.value.code is ErrorCode.CHUNK
    return caught.value.detail


@given(st.binary(min_size=1, max_size=5000))
def test_a_chunk_opens_to_what_was_sealed(plain: bytes) -> None:
    """Whatever the bytes, compressed or not, they come back."""
    assert open_chunk(*sealed(plain)) == plain


def test_a_body_is_compressed_only_if_that_helps() -> None:
    """What does not shrink is kept raw."""
    assert make_body(b"a" * 1000, 3)[0] is Codec.ZSTD
    assert make_body(hashlib.sha256(b"").digest(), 3) == (Codec.RAW, hashlib.sha256(b"").digest())


def test_equal_bodies_are_one_chunk_and_other_secrets_another() -> None:
    """Deduplication is within one publisher; nobody else can compute its ids."""
    assert encrypt_body(SECRET, Codec.RAW, b"body") == encrypt_body(SECRET, Codec.RAW, b"body")
    other = encrypt_body(b"\0" * 32, Codec.RAW, b"body")
    assert other[0] != encrypt_body(SECRET, Codec.RAW, b"body")[0]
    assert encrypt_body(SECRET, Codec.ZSTD, b"body")[1] != encrypt_body(SECRET, Codec.RAW, b"body")[1]


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_bit_anywhere_is_found(position: int, flip: int) -> None:
    """A chunk that was tampered with is refused before it is decrypted."""
    ref, ciphertext = sealed(b"some plain bytes" * 20)
    changed = bytearray(ciphertext)
    changed[position % len(changed)] ^= flip
    assert "hash" in refused(ref, bytes(changed))


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + b"\0", lambda c: b""], ids=["cut", "long", "empty"])
def test_another_length_is_refused(change: object) -> None:
    """The length is looked at first."""
    ref, ciphertext = sealed(b"some plain bytes" * 20)
    assert callable(change)
    assert "found" in refused(ref, change(ciphertext))


def test_another_chunk_under_this_name_is_refused() -> None:
    """A publisher who lists a wrong key, or a wrong plain hash, is found out."""
    ref, ciphertext = sealed(b"some plain bytes" * 20)
    assert "tag" in refused(replace(ref, key=b"\0" * 32), ciphertext)
    assert "manifest says" in refused(replace(ref, sha256=b"\0" * 32), ciphertext)


def test_a_decompression_bomb_stops_at_the_manifests_length() -> None:
    """A body that would become more than was promised is refused without being unpacked."""
    ref, ciphertext = sealed(b"a" * 100, Codec.ZSTD, zstd.compress(b"\0" * 50_000_000, 3))
    assert "more than 100 B" in refused(ref, ciphertext)


@pytest.mark.parametrize(
    "body",
    [b"not zstd", zstd.compress(b"a" * 100)[:-1], zstd.compress(b"a" * 100) + b"x", zstd.compress(b"a" * 99)],
    ids=["junk", "cut", "followed", "short"],
)
def test_a_body_that_is_not_one_frame_is_refused(body: bytes) -> None:
    """Exactly one whole frame makes a body."""
    refused(*sealed(b"a" * 100, Codec.ZSTD, body))


def test_a_frame_with_a_large_window_is_refused() -> None:
    """A device never gives a frame more memory than 2 MiB of window."""
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: 24,
        zstd.CompressionParameter.content_size_flag: 0,
    }
    maker = zstd.ZstdCompressor(options=options)
    body = maker.compress(b"a" * 100) + maker.flush()
    assert "within bounds" in refused(*sealed(b"a" * 100, Codec.ZSTD, body))


def test_a_manifest_opens_with_its_key_alone() -> None:
    """Each seal has its own key; another key opens nothing."""
    key, box = seal_manifest(b'{"v":1}')
    assert open_manifest(key, box) == b'{"v":1}'
    other, other_box = seal_manifest(b'{"v":1}')
    assert other != key
    assert other_box != box
    for wrong_key, wrong_box in ((other, box), (key, box[:-1] + b"\0"), (key, b""), (key, box[:12]), (b"", box)):
        with pytest.raises(ContentError) as caught:
            open_manifest(wrong_key, wrong_box)
        assert caught.value.code is ErrorCode.KEY


def test_a_wrapped_key_is_for_one_device_and_one_release() -> None:
    """A wrap that was moved to another device, release or key is refused."""
    private, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    wrapped = wrap_key(b"\5" * 32, private.public_key(), release=RELEASE, device="dev1")
    assert unwrap_key(wrapped, private, release=RELEASE, device="dev1") == b"\5" * 32
    attempts = [
        (wrapped, other, RELEASE, "dev1"),
        (wrapped, private, RELEASE, "dev2"),
        (wrapped, private, "ef" * 32, "dev1"),
        (wrapped[:-1], private, RELEASE, "dev1"),
        (wrapped[:-1] + bytes([wrapped[-1] ^ 1]), private, RELEASE, "dev1"),
        (b"", private, RELEASE, "dev1"),
        (b"\0" * 80, private, RELEASE, "dev1"),
    ]
    for bytes_, key, release, device in attempts:
        with pytest.raises(ContentError) as caught:
            unwrap_key(bytes_, key, release=release, device=device)
        assert caught.value.code is ErrorCode.KEY


def test_a_key_of_another_length_is_refused() -> None:
    """Even from an honest wrap, a content key has 32 bytes."""
    private = X25519PrivateKey.generate()
    wrapped = wrap_key(b"\5" * 16, private.public_key(), release=RELEASE, device="dev1")
    with pytest.raises(ContentError, match="32 B expected, 16 found"):
        unwrap_key(wrapped, private, release=RELEASE, device="dev1")


def test_no_error_names_a_key() -> None:
    """What is refused is described without keys or plain bytes."""
    ref, ciphertext = sealed(b"plain secret" * 10)
    detail = refused(replace(ref, key=b"\0" * 32), ciphertext)
    assert ref.key.hex() not in detail
    assert "plain secret" not in detail
