"""Which deltas a device asks for, and what it makes of them."""

from pathlib import Path
from random import Random

import pytest

from device_client.download.base_stream import Base
from device_client.download.deltas import Deltas
from protocol.chunks import TAG_BYTES, ChunkRef
from protocol.encryption import make_delta
from protocol.errors import ContentError, ErrorCode
from tests.device_client.download.versions import Release, place, release

RANDOM = Random(6)
OLD = RANDOM.randbytes(5000)
NEW = [OLD[:2000] + b"first change", OLD[2000:4000] + b"second change", RANDOM.randbytes(1000)]


def refs(new: Release) -> list[ChunkRef]:
    """Its chunks."""
    return list(new.artifact.chunk_refs())


@pytest.fixture
def slot(tmp_path: Path) -> Base:
    """The old version in place."""
    return Base([place(tmp_path / "slot", {"image": OLD})])


@pytest.fixture
def new() -> Release:
    """The new version: two of its three chunks as deltas."""
    made = release(NEW)
    made.add_deltas(OLD, {0: (0, 3000), 1: (1500, 3000)})
    return made


def test_the_shorter_way_is_asked_for(slot: Base, new: Release) -> None:
    """And makes the chunk; a chunk without a delta is itself."""
    deltas = Deltas(new.artifact, slot)
    first, _, third = refs(new)
    cid = new.delta_cid()
    assert deltas.instead_of(new.cid(0), first) == (cid, len(new.chunks[cid]))
    assert deltas.instead_of(new.cid(2), third) is None
    assert cid in deltas
    assert new.cid(0) not in deltas
    assert deltas.chunks_of(cid) == (new.cid(0),)
    assert deltas.apply(new.cid(0), first, deltas.body(cid, new.chunks[cid])) == NEW[0]
    deltas.begin()
    assert cid not in deltas


def test_a_device_with_another_version_asks_for_chunks(tmp_path: Path, new: Release) -> None:
    """So does one that has nothing."""
    other = Base([place(tmp_path / "slot", {"image": OLD + b"x"})])
    for base in (other, Base([]), None):
        assert Deltas(new.artifact, base).instead_of(new.cid(0), refs(new)[0]) is None


def test_a_changed_base_is_found_before_asking(tmp_path: Path, slot: Base, new: Release) -> None:
    """One other byte in the range of a delta, and the chunk is asked for; others are not affected."""
    (tmp_path / "slot" / "image").write_bytes(b"X" + OLD[1:])
    deltas = Deltas(new.artifact, slot)
    assert deltas.instead_of(new.cid(0), refs(new)[0]) is None
    assert deltas.instead_of(new.cid(1), refs(new)[1]) is not None


def test_a_base_that_changes_afterwards_makes_no_chunk(tmp_path: Path, slot: Base, new: Release) -> None:
    """It is read and verified again when the delta came."""
    deltas = Deltas(new.artifact, slot)
    cid, size = deltas.instead_of(new.cid(0), refs(new)[0]) or ("", 0)
    assert size
    (tmp_path / "slot" / "image").write_bytes(b"X" + OLD[1:])
    assert deltas.apply(new.cid(0), refs(new)[0], deltas.body(cid, new.chunks[cid])) is None
    deltas.failed(new.cid(0))
    (tmp_path / "slot" / "image").write_bytes(OLD)
    assert deltas.instead_of(new.cid(0), refs(new)[0]) is None, "it failed once"


def test_a_delta_is_only_used_where_it_is_shorter(slot: Base) -> None:
    """Whatever the manifest offers."""
    new = release(NEW)
    new.add_deltas(OLD, {2: (0, 3000)}, bodies={2: bytes(1000)})
    assert len(new.chunks[new.delta_cid()]) == 1000 + TAG_BYTES
    assert Deltas(new.artifact, slot).instead_of(new.cid(2), refs(new)[2]) is None


def test_the_shortest_of_several_bases_is_taken(tmp_path: Path) -> None:
    """A device with two versions in place may have deltas against both."""
    older = RANDOM.randbytes(1000) + OLD[1000:]
    base = Base([place(tmp_path / "a", {"image": older}), place(tmp_path / "b", {"image": OLD})])
    new = release(NEW)
    new.add_deltas(older, {0: (0, 3000)})
    new.add_deltas(OLD, {0: (0, 3000)})
    _, size = Deltas(new.artifact, base).instead_of(new.cid(0), refs(new)[0]) or ("", 0)
    assert size == min(len(data) for data in new.chunks.values())


def test_two_chunks_may_share_a_delta(tmp_path: Path) -> None:
    """Two chunks that differ from their bases in the same way are one delta, each made from its own base."""
    left, right = OLD[:1000], OLD[1000:2000]
    new = release([left[1:] + b"!", right[1:] + b"!"])
    bodies = [make_delta(plain[1:] + b"!", plain, 3) for plain in (left, right)]
    assert bodies[0] == bodies[1]
    new.add_deltas(OLD, {0: (0, 1000), 1: (1000, 1000)})
    deltas = Deltas(new.artifact, Base([place(tmp_path / "slot", {"image": OLD})]))
    cids = {(deltas.instead_of(new.cid(index), ref) or ("", 0))[0] for index, ref in enumerate(refs(new))}
    (cid,) = cids
    body = deltas.body(cid, new.chunks[cid])
    made = [deltas.apply(chunk, refs(new)[at], body) for at, chunk in enumerate(deltas.chunks_of(cid))]
    assert made == [left[1:] + b"!", right[1:] + b"!"]


def test_rows_that_are_no_base64_are_refused(slot: Base, new: Release) -> None:
    """A manifest that was signed with nonsense in it is a bad manifest, not a crash."""
    (found,) = new.artifact.deltas
    for at in (1, 2, 6):
        row = list(found.rows[0])
        row[at] = "=nonsense"
        broken = found.model_copy(update={"rows": [tuple(row)]})
        with pytest.raises(ContentError) as caught:
            Deltas(new.artifact.model_copy(update={"deltas": [broken]}), slot)
        assert caught.value.code is ErrorCode.FORMAT
