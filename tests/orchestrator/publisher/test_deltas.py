"""Deltas: a device with a former version makes every chunk that it lacks, from fewer bytes."""

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.errors import OperationError
from orchestrator.publisher.deltas import ROW_BYTES, add_deltas, pack_with_deltas
from orchestrator.publisher.packing import Packed, pack, pack_source
from orchestrator.publisher.sources import scan
from protocol.chunks import MAX_BASE_BYTES, MAX_BASES, ChunkRef, DeltaRef
from protocol.encryption import apply_delta, open_chunk, open_delta_body
from protocol.manifest import Artifact

SECRET = b"s" * 32


def make(root: Path, edits: int, seed: int = 1) -> Path:
    """A tree of 1.2 MB of random bytes, with some bytes changed in many places."""
    data = bytearray(random.Random(seed).randbytes(1_200_000))
    for place in range(edits):
        data[40_000 + place * 30_000] ^= 1
    root.mkdir()
    (root / "big").write_bytes(data[:1_000_000])
    (root / "small").write_bytes(data[1_000_000:])
    return root


def packed(new: Path, olds: Sequence[Path], level: int = 3) -> tuple[Packed, dict[str, bytes]]:
    """The artifact with deltas, and everything that went to the sink."""
    chunks: dict[str, bytes] = {}

    def sink(cid: str, data: bytes) -> None:
        assert cid not in chunks, "a chunk came twice"
        chunks[cid] = data

    return pack_with_deltas(new, olds, "app", SECRET, sink, delta_level=level), chunks


def deltas(artifact: Artifact, number: int = 0) -> list[tuple[ChunkRef, DeltaRef]]:
    """Each delta of a set with its chunk."""
    refs = list(artifact.chunk_refs())
    return [(refs[index], delta) for index, delta in artifact.deltas[number].delta_refs()]


def stream(root: Path) -> bytes:
    """The stream of a tree."""
    return b"".join(path.read_bytes() for path in sorted(root.iterdir()))


def test_every_delta_makes_its_chunk(tmp_path: Path) -> None:
    """From the former stream's own bytes, and with a tenth of what the chunks are."""
    old, new = make(tmp_path / "old", 0), make(tmp_path / "new", 15)
    result, chunks = packed(new, [old])
    base = stream(old)
    (found,) = result.artifact.deltas
    assert (found.sha256, found.length) == (hashlib.sha256(base).hexdigest(), len(base))
    full = 0
    for ref, delta in deltas(result.artifact):
        body = open_delta_body(delta, chunks[delta.cid.hex()])
        part = base[delta.base_offset : delta.base_offset + delta.base_length]
        assert delta.base_length <= MAX_BASE_BYTES
        assert apply_delta(ref, delta, body, part) == open_chunk(ref, chunks[ref.cid.hex()])
        full += ref.body_length
    assert full > 400_000
    assert result.delta_bytes < full / 100
    assert (result.delta_chunks, result.delta_bytes) == _counted(result.artifact, chunks)


def _counted(artifact: Artifact, chunks: dict[str, bytes]) -> tuple[int, int]:
    cids = {delta.cid.hex() for number in range(len(artifact.deltas)) for _, delta in deltas(artifact, number)}
    return len(cids), sum(len(chunks[cid]) for cid in cids)


def test_full_chunks_are_what_they_are_without_deltas(tmp_path: Path) -> None:
    """A device that has none of the former versions fetches the same chunks as ever."""
    old, new = make(tmp_path / "old", 0), make(tmp_path / "new", 3)
    result, _ = packed(new, [old])
    plain = pack(new, "app", SECRET, lambda _cid, _data: None)
    assert result.artifact.model_copy(update={"deltas": []}) == plain.artifact
    assert (result.distinct_chunks, result.chunk_bytes) == (plain.distinct_chunks, plain.chunk_bytes)


def test_the_same_versions_make_the_same_deltas(tmp_path: Path) -> None:
    """Whichever thread was done first."""
    old, new = make(tmp_path / "old", 0), make(tmp_path / "new", 9)
    first, second = packed(new, [old]), packed(new, [old])
    assert first == second
    assert list(first[1]) == list(second[1])


def test_each_former_version_has_deltas_of_its_own(tmp_path: Path) -> None:
    """A chunk that one of them has is a delta against the other; the same version twice counts once."""
    oldest, old, new = (make(tmp_path / name, edits) for name, edits in (("a", 0), ("b", 6), ("c", 12)))
    result, _ = packed(new, [oldest, old, oldest])
    by_base = {found.sha256: len(found.rows) for found in result.artifact.deltas}
    assert len(by_base) == 2
    far, near = (by_base[hashlib.sha256(stream(root)).hexdigest()] for root in (oldest, old))
    assert 0 < near < far


def test_content_that_moved_is_found(tmp_path: Path) -> None:
    """A megabyte in front of the old content does not lead the search astray."""
    old = make(tmp_path / "old", 0)
    new = tmp_path / "new"
    new.mkdir()
    data = bytearray((old / "big").read_bytes())
    for place in range(20_000, 1_000_000, 20_000):
        data[place] ^= 1
    (new / "big").write_bytes(random.Random(9).randbytes(1_000_000) + data)
    result, _ = packed(new, [old])
    moved = sum(ref.length for ref, _ in deltas(result.artifact))
    assert moved > 900_000
    assert result.delta_bytes < 50_000


def test_what_is_no_shorter_is_left_out(tmp_path: Path) -> None:
    """Unrelated bytes make no delta, and a former version that helps nowhere has no set of deltas."""
    old, new = make(tmp_path / "old", 0, seed=1), make(tmp_path / "new", 0, seed=2)
    result, chunks = packed(new, [old])
    assert result.artifact.deltas == []
    assert (result.delta_chunks, result.delta_bytes) == (0, 0)
    assert len(chunks) == result.distinct_chunks


def test_a_delta_pays_for_its_row(tmp_path: Path) -> None:
    """A chunk that is hardly larger than a row of the manifest stays a chunk."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"x" * 50 + b"old")
    new.write_bytes(random.Random(2).randbytes(ROW_BYTES))
    assert packed(new, [old])[0].artifact.deltas == []
    old.write_bytes(b"tiny")
    assert packed(new, [old])[0].artifact.deltas == []


def test_progress_ends_at_the_whole(tmp_path: Path) -> None:
    """Plain bytes that were tried, never falling."""
    old, new = make(tmp_path / "old", 0), make(tmp_path / "new", 9)
    told: list[tuple[int, int]] = []
    source = scan(new)
    result = pack_source(source, "app", SECRET, lambda _cid, _data: None)
    add_deltas(result, source, [old], SECRET, lambda _cid, _data: None, level=1, progress=lambda *at: told.append(at))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] == {total for _, total in told}.pop() > 0


def test_a_source_that_changed_is_refused(tmp_path: Path) -> None:
    """Chunks are read a second time: what is another one by then ends the making."""
    old, new = make(tmp_path / "old", 0), make(tmp_path / "new", 9)
    source = scan(new)
    result = pack_source(source, "app", SECRET, lambda _cid, _data: None)
    (new / "big").write_bytes(bytes(1_000_000))
    with pytest.raises(OperationError, match="changed while"):
        add_deltas(result, source, [old], SECRET, lambda _cid, _data: None, level=1)


def test_there_are_not_too_many_former_versions(tmp_path: Path) -> None:
    """More than the manifest may name are refused before anything is read."""
    new = make(tmp_path / "new", 0)
    with pytest.raises(ValueError, match="at most 8"):
        packed(new, [new] * (MAX_BASES + 1))
