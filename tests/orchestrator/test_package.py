"""The package file: whole or refused."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import NotFoundError, OperationError
from orchestrator.package import CEK, CHUNK, PIECE, RELEASE, TRUST, PackageHeader, PackageReader
from orchestrator.package_writer import PackageWriter

HEADER = PackageHeader(fleet="harbour", product="gateway", version="1.1.0", manifest_sha256="a" * 64)
CHUNKS = [bytes([number]) * (50 + number) for number in range(4)]


def write(path: Path) -> dict[str, bytes]:
    """A small package; returns what is in it."""
    blobs = {CHUNK + hashlib.sha256(chunk).hexdigest(): chunk for chunk in CHUNKS}
    blobs[PIECE + hashlib.sha256(b"piece").hexdigest()] = b"piece"
    blobs[TRUST + "1.releases-gate_way.json"] = b"{}"
    blobs[CEK] = b"w" * 80
    blobs[RELEASE] = HEADER.model_dump_json().encode()
    with PackageWriter(path) as package:
        for name, data in blobs.items():
            package.add(name, data)
    return blobs


def read(path: Path) -> dict[str, bytes]:
    """Everything in a package."""
    with PackageReader(path) as package:
        return {name: package.read(name) for name in package.names()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a good package."""
    path = tmp_path_factory.mktemp("whole") / "release.package"
    write(path)
    return path.read_bytes()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Every blob and the header come back as they were added."""
    path = tmp_path / "release.package"
    blobs = write(path)
    assert read(path) == blobs
    with PackageReader(path) as package:
        assert package.header == HEADER
        assert list(package.names(CHUNK)) == [name for name in blobs if name.startswith(CHUNK)]
        assert package.length(CEK) == 80


@settings(max_examples=300, deadline=None)
@given(place=st.integers(min_value=0, max_value=10**9), flip=st.integers(min_value=1, max_value=255))
def test_a_flipped_byte_is_refused(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, place: int, flip: int
) -> None:
    """A package with any byte changed is never read to its end."""
    damaged = bytearray(whole)
    damaged[place % len(whole)] ^= flip
    path = tmp_path_factory.getbasetemp() / "flipped.package"
    path.write_bytes(damaged)
    with pytest.raises(OperationError):
        read(path)


@settings(max_examples=200, deadline=None)
@given(length=st.integers(min_value=0, max_value=10**9), tail=st.binary(max_size=60))
def test_a_cut_package_is_refused(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, length: int, tail: bytes
) -> None:
    """A package that is cut anywhere, whatever follows then, is refused."""
    data = whole[: length % len(whole)] + tail
    path = tmp_path_factory.getbasetemp() / "cut.package"
    path.write_bytes(data)
    if data == whole:
        return
    with pytest.raises(OperationError):
        read(path)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_anything_else_is_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Any other file, also one that starts like a package, is refused with one sentence."""
    path = tmp_path_factory.getbasetemp() / "other.package"
    for content in (data, b"FLAGPKG1" + data):
        path.write_bytes(content)
        with pytest.raises(OperationError) as refused:
            read(path)
        assert "\n" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A package that is not there is a NotFoundError that says how to make one."""
    with pytest.raises(NotFoundError, match="release create"):
        PackageReader(tmp_path / "none.package")


def test_a_blob_above_the_cap_is_not_read(tmp_path: Path) -> None:
    """The caller's cap holds before a byte is read."""
    write(tmp_path / "p")
    with PackageReader(tmp_path / "p") as package, pytest.raises(OperationError, match="at most 79"):
        package.read(CEK, 79)


def test_a_blob_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Reading what the index lacks names it."""
    write(tmp_path / "p")
    with PackageReader(tmp_path / "p") as package, pytest.raises(OperationError, match="chunk/ff is missing"):
        package.read("chunk/ff")


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    """A package whose making failed is not there, and neither is a part of it."""
    with pytest.raises(RuntimeError), PackageWriter(tmp_path / "p") as package:
        package.add(CEK, b"x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_one_name_is_added_once(tmp_path: Path) -> None:
    """A second blob of one name is the caller's mistake."""
    with pytest.raises(ValueError, match="cek"), PackageWriter(tmp_path / "p") as package:
        package.add(CEK, b"x")
        assert CEK in package
        package.add(CEK, b"y")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Writing into nowhere is one sentence."""
    with pytest.raises(NotFoundError, match="does not exist"):
        PackageWriter(tmp_path / "none" / "p")
