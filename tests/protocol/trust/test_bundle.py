"""The bundle of metadata files: packed and unpacked alike, within caps, whatever the bytes are."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ErrorCode, TrustError
from protocol.trust.bundle import MAX_BUNDLE_BYTES, MAX_BUNDLE_UNPACKED_BYTES, pack_bundle, unpack_bundle
from tests.protocol.trust.repository import Repository


def test_a_bundle_reads_back() -> None:
    """Packing and unpacking are inverse, and equal sets make equal bytes."""
    files = Repository().files()
    assert unpack_bundle(pack_bundle(files)) == files
    assert pack_bundle(dict(reversed(files.items()))) == pack_bundle(files)


def test_a_bundle_beyond_its_cap_is_not_made() -> None:
    """The publisher learns of a set that devices would refuse."""
    with pytest.raises(TrustError) as caught:
        pack_bundle({"1.targets.json": b"a" * (MAX_BUNDLE_UNPACKED_BYTES + 1)})
    assert caught.value.code is ErrorCode.OVERSIZE


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\0" * (MAX_BUNDLE_BYTES + 1), ErrorCode.OVERSIZE),
        (zlib.compress(b"[" + b" " * 50_000_000 + b"]", 9)[:MAX_BUNDLE_BYTES], ErrorCode.OVERSIZE),
        (b"", ErrorCode.FORMAT),
        (b"not zlib", ErrorCode.FORMAT),
        (zlib.compress(b"{}")[:-2], ErrorCode.FORMAT),
        (zlib.compress(b"{}") + b"x", ErrorCode.FORMAT),
        (zlib.compress(b"[]"), ErrorCode.FORMAT),
        (zlib.compress(b'{"a":1}'), ErrorCode.FORMAT),
        (zlib.compress(b'{"a":"\\ud800"}'), ErrorCode.FORMAT),
        (zlib.compress(b"[" * 100_000), ErrorCode.FORMAT),
    ],
    ids=["long", "bomb", "empty", "junk", "cut", "followed", "array", "number", "surrogate", "deep"],
)
def test_a_bad_bundle_is_refused(raw: bytes, code: ErrorCode) -> None:
    """Bombs, junk and torn bundles end in a code, within a bounded time and space."""
    with pytest.raises(TrustError) as caught:
        unpack_bundle(raw)
    assert caught.value.code is code


@given(st.binary(max_size=300))
def test_no_bytes_make_unpacking_fail_in_another_way(raw: bytes) -> None:
    """Any bytes are a bundle or a TrustError."""
    for candidate in (raw, zlib.compress(raw)):
        try:
            files = unpack_bundle(candidate)
        except TrustError:
            continue
        assert all(isinstance(data, bytes) for data in files.values())
