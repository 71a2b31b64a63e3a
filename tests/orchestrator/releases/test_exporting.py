"""The exported tree: whole, proven, incremental, and a device can judge the releases by its trust folder alone."""

import errno
import os
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.delivery.trust_topics import renew_timestamp
from orchestrator.errors import ConflictError, NotFoundError, OperationError
from orchestrator.releases import exporting
from orchestrator.releases.exporting import export_chunks, export_trust
from orchestrator.storage import releases
from protocol.trust.workflow import TrustStore
from tests.orchestrator.releases.conftest import NOW, PRODUCTS, Depot


async def stock(depot: Depot, package: Path) -> dict[str, int]:
    """Take the package in; its chunks with their lengths."""
    record = await depot.take(package)
    async with depot.db.read() as conn:
        return await releases.chunks(conn, record.id)


def exported(directory: Path) -> dict[str, bytes]:
    """What lies in the tree's chunks."""
    return {path.name: path.read_bytes() for path in (directory / "chunks").iterdir()}


async def test_every_chunk_and_piece_is_a_file_under_its_id(depot: Depot, package: Path, tmp_path: Path) -> None:
    """Byte for byte what the store has, readable by a web server, told as it goes."""
    chunks = await stock(depot, package)
    told: list[int] = []
    done = export_chunks(depot.chunks, chunks, tmp_path / "tree", told.append)
    assert exported(tmp_path / "tree") == {cid: depot.chunks.get(cid) for cid in chunks}
    assert (done.written, done.written_bytes, done.kept) == (len(chunks), sum(chunks.values()), 0)
    assert sum(told) == sum(chunks.values())
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in (tmp_path / "tree" / "chunks").iterdir())


async def test_what_is_whole_is_kept_and_what_is_not_is_written_again(
    depot: Depot, package: Path, tmp_path: Path
) -> None:
    """Damaged, cut, a symbolic link, or left half by a cut: mended; every other file is not touched."""
    chunks = await stock(depot, package)
    folder = tmp_path / "chunks"
    export_chunks(depot.chunks, chunks, tmp_path, lambda _: None)
    first, second, third, *rest = sorted(chunks)
    (folder / first).write_bytes(b"x" * chunks[first])
    (folder / second).write_bytes(b"short")
    (folder / third).unlink()
    (folder / third).symlink_to(folder / rest[0])
    (folder / f".{rest[0]}.new").write_bytes(b"half")
    before = {cid: (folder / cid).stat().st_mtime_ns for cid in rest}
    done = export_chunks(depot.chunks, chunks, tmp_path, lambda _: None)
    assert (done.written, done.kept) == (3, len(rest))
    assert exported(tmp_path) == {cid: depot.chunks.get(cid) for cid in chunks}
    assert {cid: (folder / cid).stat().st_mtime_ns for cid in rest} == before
    assert not (folder / third).is_symlink()


async def test_a_damaged_store_is_not_copied(depot: Depot, package: Path, tmp_path: Path) -> None:
    """The chunk is named; what was proven stays."""
    chunks = await stock(depot, package)
    bad = min(chunks)
    (depot.home.chunks / bad[:2] / bad).write_bytes(b"damaged")
    with pytest.raises(OperationError, match="damaged"):
        export_chunks(depot.chunks, {bad: chunks[bad]}, tmp_path, lambda _: None)
    assert bad not in exported(tmp_path)
    with pytest.raises(NotFoundError):
        export_chunks(depot.chunks, {"0" * 64: 1}, tmp_path, lambda _: None)


async def test_a_full_disk_is_told_and_the_next_export_goes_on(
    depot: Depot, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence with the folder; nothing half has a chunk's name."""
    chunks = await stock(depot, package)
    real, written = Path.write_bytes, 0

    def full(path: Path, data: bytes) -> int:
        nonlocal written
        written += 1
        if written > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, data)

    monkeypatch.setattr(exporting, "AT_ONCE", 2)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OperationError, match="is full"):
        export_chunks(depot.chunks, chunks, tmp_path, lambda _: None)
    monkeypatch.undo()
    done = export_chunks(depot.chunks, chunks, tmp_path, lambda _: None)
    assert done.kept == 2
    assert exported(tmp_path) == {cid: depot.chunks.get(cid) for cid in chunks}


async def test_a_place_that_cannot_be_written(depot: Depot, package: Path, tmp_path: Path) -> None:
    """A file in the way is named."""
    chunks = await stock(depot, package)
    (tmp_path / "file").touch()
    with pytest.raises(ConflictError, match="expected a folder"):
        export_chunks(depot.chunks, chunks, tmp_path / "file", lambda _: None)


async def test_a_device_judges_by_the_trust_folder_alone(depot: Depot, package: Path, tmp_path: Path) -> None:
    """The set verifies from the first root on and lists the release; an older set's files are gone after the next."""
    await stock(depot, package)
    now = NOW + timedelta(hours=2)
    depot.clock.set_wall(now)
    renew_timestamp(depot.home.trust, depot.signer, now, timedelta(days=1))
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / "1.snapshot.json").write_bytes(b"of an older export")
    names = export_trust(depot.home.trust, tmp_path)
    files = {path.name: path.read_bytes() for path in (tmp_path / "trust").iterdir()}
    assert sorted(files) == names
    store = TrustStore(tmp_path / "device", files["1.root.json"])
    (tmp_path / "device").mkdir()
    trusted = store.refresh(files, now, (PRODUCTS[0],))
    assert trusted.release("gateway/1.1.0/manifest") is not None


async def test_trust_that_is_incomplete_is_not_exported(depot: Depot, tmp_path: Path) -> None:
    """A medium that no device could verify is an error here, not there."""
    for path in depot.home.trust.glob("*.targets.json"):
        path.unlink()
    with pytest.raises(OperationError, match="targets"):
        export_trust(depot.home.trust, tmp_path)
