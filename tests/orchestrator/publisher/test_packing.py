"""Packing: every byte comes back, equal content is one chunk, and the cuts never change."""

import hashlib
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.publisher.packing import Packed, chunker, pack
from protocol.chunks import MAX_CIPHERTEXT_BYTES
from protocol.encryption import open_chunk

SECRET = b"s" * 32
CUTS_SHA256 = "1d8301632a0ad47bd8a44b4a1b210d8e89e9e4e3146d302e866cd5c89322a44e"


def packed(path: Path, secret: bytes = SECRET) -> tuple[Packed, dict[str, bytes]]:
    """An artifact and its chunks by id."""
    chunks: dict[str, bytes] = {}

    def sink(cid: str, data: bytes) -> None:
        assert cid not in chunks, "a chunk came twice"
        chunks[cid] = data

    return pack(path, "app", secret, sink), chunks


def opened(result: Packed, chunks: dict[str, bytes]) -> bytes:
    """The stream, as a device puts it together."""
    return b"".join(open_chunk(ref, chunks[ref.cid.hex()]) for ref in result.artifact.chunk_refs())


def make_tree(root: Path, seed: int = 1, files: int = 40) -> None:
    """Files of random length, half of them compressible."""
    source = random.Random(seed)
    for number in range(files):
        folder = root / f"d{number % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        data = source.randbytes(source.randrange(0, 120_000))
        (folder / f"f{number}").write_bytes(data if number % 2 else data.hex().encode())


def test_what_was_packed_is_what_a_device_opens(tmp_path: Path) -> None:
    """Chunks in order make the stream, and slices of the stream are the files."""
    make_tree(tmp_path)
    (tmp_path / "link").symlink_to("d0/f0")
    result, chunks = packed(tmp_path)
    stream = opened(result, chunks)
    assert hashlib.sha256(stream).hexdigest() == result.artifact.sha256
    for entry in result.artifact.files:
        assert stream[entry.offset : entry.offset + entry.length] == (tmp_path / entry.path).read_bytes()
    assert [entry.path for entry in result.artifact.files] == sorted(entry.path for entry in result.artifact.files)
    assert result.distinct_chunks == len(chunks)
    assert result.chunk_bytes == sum(len(data) for data in chunks.values())
    assert result.space_bytes >= 2 * result.artifact.length
    assert max(len(data) for data in chunks.values()) <= MAX_CIPHERTEXT_BYTES


def test_a_file_is_an_artifact_of_its_own(tmp_path: Path) -> None:
    """A regular file keeps its name, mode and bytes."""
    path = tmp_path / "firmware.bin"
    path.write_bytes(random.Random(3).randbytes(400_000))
    path.chmod(0o640)
    result, chunks = packed(path)
    assert (result.artifact.kind, result.artifact.name) == ("file", "firmware.bin")
    assert [entry.mode for entry in result.artifact.files] == [0o640]
    assert opened(result, chunks) == path.read_bytes()


def test_packing_again_gives_the_same_chunks(tmp_path: Path) -> None:
    """One secret and one tree give one set of ids."""
    make_tree(tmp_path)
    assert packed(tmp_path)[1] == packed(tmp_path)[1]


def test_another_secret_shares_nothing(tmp_path: Path) -> None:
    """Without the publisher's secret no one can tell what a chunk holds by making it again."""
    make_tree(tmp_path, files=6)
    assert not packed(tmp_path)[1].keys() & packed(tmp_path, b"t" * 32)[1].keys()


def test_a_small_change_reuses_most_chunks(tmp_path: Path) -> None:
    """Changing, adding and growing files costs chunks near them, not the whole image."""
    make_tree(tmp_path)
    first, old = packed(tmp_path)
    (tmp_path / "d1" / "f1").write_bytes(b"changed" * 100)
    (tmp_path / "d2" / "new").write_bytes(b"new file")
    second, new = packed(tmp_path)
    fresh = sum(len(data) for cid, data in new.items() if cid not in old)
    assert first.artifact.sha256 != second.artifact.sha256
    assert 0 < fresh < 0.25 * second.chunk_bytes


def test_equal_content_is_one_chunk(tmp_path: Path) -> None:
    """A megabyte of zeros is a few distinct chunks, each handed out once."""
    (tmp_path / "zeros").write_bytes(bytes(3_000_000))
    result, chunks = packed(tmp_path)
    assert len(result.artifact.chunks) > 10
    assert len(chunks) <= 2
    assert opened(result, chunks) == bytes(3_000_000)


@settings(max_examples=40, deadline=None)
@given(
    contents=st.lists(
        st.one_of(
            st.binary(max_size=300),
            st.builds(lambda seed, size: random.Random(seed).randbytes(size), st.integers(), st.integers(0, 300_000)),
        ),
        min_size=1,
        max_size=8,
    ).filter(any)
)
def test_any_tree_comes_back(tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]) -> None:
    """Whatever lengths files have, the stream is their concatenation and nothing else."""
    root = tmp_path_factory.mktemp("tree")
    for number, content in enumerate(contents):
        (root / f"f{number}").write_bytes(content)
    assert opened(*packed(root)) == b"".join(contents)


def test_the_cuts_are_pinned() -> None:
    """The chunker's cuts are part of what makes chunks shared: a library that cuts elsewhere must be noticed."""
    data = random.Random(2026).randbytes(2_000_000)
    cuts = [chunk.length for chunk in chunker().cut_buf(data)]
    assert hashlib.sha256(repr(cuts).encode()).hexdigest() == CUTS_SHA256, cuts
