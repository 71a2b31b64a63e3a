"""A package is taken in whole, as a device would check it, or leaves nothing behind."""

import asyncio
import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import Home, Settings
from orchestrator.errors import ConflictError, NotAllowedError, NotFoundError, OperationError
from orchestrator.package import CEK, CHUNK, PIECE, RELEASE, TRUST, PackageReader
from orchestrator.publisher import creating
from orchestrator.publisher.packing import Packed, pack_source
from orchestrator.releases import importer
from orchestrator.releases.importer import import_package
from orchestrator.releases.package_trust import store_trust
from orchestrator.signer.signer import Signer
from orchestrator.storage import releases
from orchestrator.storage.chunk_store import ChunkStore
from orchestrator.storage.database import Database
from orchestrator.storage.releases import IMPORTING
from protocol.manifest import Artifact
from protocol.trust.workflow import TrustStore
from tests.orchestrator.releases.conftest import NOW, Depot, make_image, make_keys, make_package, rewrite

LATER = NOW + timedelta(hours=1)


async def test_a_release_is_taken_in(depot: Depot, package: Path, tmp_path: Path) -> None:
    """Afterwards the row, every chunk and metadata that a device accepts are there."""
    record = await depot.take(package)
    with PackageReader(package) as reader:
        names = {name.partition("/")[2] for name in reader.names() if name.startswith((CHUNK, PIECE))}
        assert record.chunk_bytes == sum(reader.length(n) for n in reader.names() if n.startswith((CHUNK, PIECE)))
        assert record.wrapped_key == reader.read(CEK)
    image = sum(path.stat().st_size for path in depot.image.iterdir())
    assert (record.id, record.state, record.image_bytes) == ("gateway/1.1.0", IMPORTING, image)
    assert depot.stored() == names
    async with depot.db.read() as conn:
        assert await releases.get(conn, record.id) == record
        assert set(await releases.chunks(conn, record.id)) == names
    files = depot.trust()
    trusted = TrustStore(tmp_path / "device", files["1.root.json"]).refresh(files, LATER, ("gateway",))
    target = trusted.release(record.path)
    assert target is not None
    assert (target.sha256, target.length) == (record.sha256, record.length)


async def test_the_same_package_again_changes_nothing(depot: Depot, package: Path) -> None:
    """A second publish, after an answer that was lost, is no mistake."""
    record = await depot.take(package)
    before = depot.trust()
    assert await depot.take(package) == record
    assert depot.trust() == before


async def test_the_same_package_again_restores_lost_chunks(depot: Depot, package: Path) -> None:
    """As the chunk store's own error tells a person to do."""
    await depot.take(package)
    stored = depot.stored()
    depot.chunks.remove(sorted(stored)[:2])
    await depot.take(package)
    assert depot.stored() == stored


async def test_two_imports_at_once_wait_for_each_other(depot: Depot, package: Path) -> None:
    """The second finds what the first has stored."""
    first, second = await asyncio.gather(depot.take(package), depot.take(package))
    assert first == second


async def test_a_version_never_changes_its_content(depot: Depot, package: Path, tmp_path: Path) -> None:
    """The very name with another manifest is refused, and what was imported stays."""
    record = await depot.take(package)

    def other(blobs: dict[str, bytes]) -> None:
        header = json.loads(blobs[RELEASE])
        blobs[RELEASE] = json.dumps({**header, "manifest_sha256": "0" * 64}).encode()

    with pytest.raises(ConflictError, match=r"gateway/1\.1\.0: imported already with other content"):
        await depot.take(rewrite(package, other))
    assert await depot.take(package) == record


async def test_releases_follow_one_another(depot: Depot, package: Path, tmp_path: Path) -> None:
    """Later packages build on the metadata of the earlier; shared chunks are kept once, other products stay listed."""
    await depot.take(package)
    (depot.image / "f0").write_bytes(os.urandom(50_000))
    second = await depot.take(make_package(depot.home.publisher, depot.image, "1.2.0"))
    other = await depot.take(make_package(depot.home.publisher, make_image(tmp_path / "i2", 2), "7", "sensor"))
    files = depot.trust()
    trusted = TrustStore(tmp_path / "device", files["1.root.json"]).refresh(files, LATER)
    for path in ("gateway/1.1.0/manifest", second.path, other.path):
        assert trusted.release(path) is not None
    async with depot.db.read() as conn:
        one, two = [set(await releases.chunks(conn, f"gateway/{version}")) for version in ("1.1.0", "1.2.0")]
    assert one & two


async def test_an_unpublished_release_of_another_product_comes_along(depot: Depot, tmp_path: Path) -> None:
    """The snapshot names its metadata; without it the devices of that product would be cut off."""
    make_package(depot.home.publisher, depot.image, "1.1.0")
    await depot.take(make_package(depot.home.publisher, make_image(tmp_path / "i2", 2), "7", "sensor"))
    files = depot.trust()
    trusted = TrustStore(tmp_path / "device", files["1.root.json"]).refresh(files, LATER, ("gateway",))
    assert trusted.release("gateway/1.1.0/manifest") is not None


def _flip(name: str) -> Callable[[dict[str, bytes]], None]:
    """Change one byte of the first blob of this prefix; a blob that is named by its digest gets the new name."""

    def change(blobs: dict[str, bytes]) -> None:
        key = next(k for k in blobs if k.startswith(name))
        data = bytearray(blobs.pop(key))
        data[len(data) // 2] ^= 1
        blobs[name + hashlib.sha256(data).hexdigest() if name in (CHUNK, PIECE) else key] = bytes(data)

    return change


def _drop(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(blobs: dict[str, bytes]) -> None:
        del blobs[next(k for k in blobs if k.startswith(name))]

    return change


def _header(**values: str) -> Callable[[dict[str, bytes]], None]:
    def change(blobs: dict[str, bytes]) -> None:
        blobs[RELEASE] = json.dumps({**json.loads(blobs[RELEASE]), **values}).encode()

    return change


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        pytest.param(_flip(CHUNK), OperationError, "is missing", id="a chunk replaced"),
        pytest.param(_flip(PIECE), OperationError, "is missing", id="a piece replaced"),
        pytest.param(_drop(CHUNK), OperationError, "is missing", id="a chunk left out"),
        pytest.param(_flip(CEK), OperationError, "E_KEY", id="content key changed"),
        pytest.param(_drop(CEK), OperationError, "cek is missing", id="content key left out"),
        pytest.param(_flip(TRUST + "2.releases"), OperationError, "not signed|damaged|E_", id="list changed"),
        pytest.param(_drop(TRUST + "2.releases"), OperationError, "E_WITHHELD", id="list left out"),
        pytest.param(_flip(TRUST + "2.snapshot"), OperationError, "not signed|E_", id="snapshot changed"),
        pytest.param(_drop(TRUST + "2.snapshot"), NotFoundError, "does not list it", id="unsigned release"),
        pytest.param(_header(version="1.9.9"), NotFoundError, "does not list it", id="another version's name"),
        pytest.param(_header(product="gatewax"), NotFoundError, "does not list it", id="an unknown product"),
        pytest.param(_header(manifest_sha256="0" * 64), OperationError, "damaged", id="another manifest's digest"),
        pytest.param(_header(fleet="other"), NotAllowedError, "made for fleet other", id="another fleet's name"),
    ],
)
async def test_what_is_not_as_signed_is_refused(
    depot: Depot, package: Path, change: Callable[[dict[str, bytes]], None], kind: type[OperationError], words: str
) -> None:
    """One sentence that names the release, and nothing is kept."""
    before = depot.trust()
    with pytest.raises(kind, match=words) as refused:
        await depot.take(rewrite(package, change))
    assert str(refused.value).startswith("package") and "\n" not in str(refused.value)
    assert str(package) not in str(refused.value)  # our own copy of it
    assert (depot.trust(), depot.stored(), await depot.known()) == (before, set(), [])
    await depot.take(package)


@pytest.mark.parametrize("cut", [0, 5, 1000, -1])
async def test_a_damaged_file_is_refused(depot: Depot, package: Path, cut: int) -> None:
    """Cut short anywhere: one sentence, and the way out."""
    package.write_bytes(package.read_bytes()[:cut])
    with pytest.raises(OperationError, match=r"package .*(damaged|expected a Flagship package).*release create|again"):
        await depot.take(package)
    assert await depot.known() == []


async def test_a_foreign_package_is_refused(depot: Depot, tmp_path: Path) -> None:
    """Another fleet's keys under our fleet's name: the first root decides, not the package's."""
    foreign = Home(tmp_path / "foreign")
    foreign.path.mkdir()
    make_keys(foreign)
    before = depot.trust()
    with pytest.raises(NotAllowedError, match="not signed by this fleet's release keys"):
        await depot.take(make_package(foreign.publisher, depot.image, "1.1.0"))
    assert (depot.trust(), depot.stored(), await depot.known()) == (before, set(), [])


async def test_what_was_not_verified_is_not_kept(depot: Depot, package: Path) -> None:
    """A package's frame is not signed: files beside the signed ones must not reach devices, a root least of all."""
    first = depot.trust()["1.root.json"]

    def smuggle(blobs: dict[str, bytes]) -> None:
        blobs[TRUST + "1.root.json"] = b'{"signed": {"_type": "root"}}'
        blobs[TRUST + "999.targets.json"] = b"{}"
        blobs[TRUST + "9.releases-sensor.json"] = b"{}"
        blobs[TRUST + "timestamp.json"] = b"{}"

    await depot.take(rewrite(package, smuggle))
    files = depot.trust()
    assert files["1.root.json"] == first
    assert set(files) == {
        *("1.root.json", "1.targets.json", "timestamp.json", "1.snapshot.json", "2.snapshot.json"),
        *("1.releases-gateway.json", "2.releases-gateway.json", "1.releases-sensor.json"),
    }
    assert json.loads(files["timestamp.json"])["signed"]["meta"]["snapshot.json"]["version"] == 2


async def test_packages_may_come_in_any_order(depot: Depot, package: Path) -> None:
    """A package that was overtaken is still listed by the newer metadata, which stays."""
    await depot.take(make_package(depot.home.publisher, depot.image, "1.2.0"))
    before = depot.trust()
    await depot.take(package)
    after = depot.trust()
    assert await depot.known() == ["gateway/1.1.0", "gateway/1.2.0"]
    assert {name for name in after if after[name] != before.get(name)} == {"timestamp.json"}


async def test_metadata_beside_what_is_published_is_refused(depot: Depot, package: Path, tmp_path: Path) -> None:
    """Keys in an old copy of their folder sign the same versions again: half of the fleet would believe either."""
    copy = Home(tmp_path / "copy").publisher
    copy.parent.mkdir()
    with PackageReader(package) as reader:
        mine = {name: reader.read(name) for name in reader.names(TRUST)}
    for path in depot.home.publisher.rglob("*"):
        place = copy / path.relative_to(depot.home.publisher)
        if path.is_dir():
            place.mkdir(parents=True, mode=0o700)
        elif not path.name.startswith("2.") and path.name != "lock":
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
            place.chmod(0o600)
    assert any("2." in name for name in mine)
    forked = make_package(copy, depot.image, "1.1.1")
    await depot.take(package)
    before = depot.trust()
    with pytest.raises(ConflictError, match="old copy"):
        await depot.take(forked)
    assert (depot.trust(), await depot.known()) == (before, ["gateway/1.1.0"])


async def test_expired_metadata_is_refused(depot: Depot, package: Path) -> None:
    """A package that lay around for too long: devices would refuse it, so it is refused here."""
    with pytest.raises(OperationError, match="its metadata ran out"):
        await depot.take(package, NOW + timedelta(days=91))
    assert await depot.known() == []


async def test_an_expired_timestamp_does_not_stand_in_the_way(depot: Depot, package: Path) -> None:
    """The orchestrator was off for a fortnight; new metadata is what mends that."""
    record = await depot.take(package, NOW + timedelta(days=14))
    assert await depot.known() == [record.id]


async def test_a_full_disk_leaves_nothing(depot: Depot, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that were copied before are removed again."""
    before, real, calls = depot.trust(), depot.chunks.put, []

    def put(cid: str, data: bytes) -> bool:
        calls.append(cid)
        if len(calls) > 3:
            raise OperationError("no space left")
        return real(cid, data)

    monkeypatch.setattr(depot.chunks, "put", put)
    with pytest.raises(OperationError, match="no space left"):
        await depot.take(package)
    assert (depot.trust(), depot.stored(), await depot.known()) == (before, set(), [])


async def test_metadata_that_cannot_be_written_leaves_the_old(depot: Depot, package: Path) -> None:
    """What was published stays valid, the chunks go, and the next try succeeds."""
    obstacle = depot.home.trust / ".2.snapshot.json.new"
    obstacle.mkdir()
    with pytest.raises(OperationError, match="cannot be written"):
        await depot.take(package)
    assert (depot.stored(), await depot.known()) == (set(), [])
    obstacle.rmdir()
    files = depot.trust()
    TrustStore(depot.home.path / "device", files["1.root.json"]).refresh(files, LATER, ("gateway",))
    await depot.take(package)


def _killed_at(home: Path, package: Path, now: datetime, step: str) -> None:
    """Import in a process of its own that dies by SIGKILL at a step."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def store_some(trust: Path, files: dict[str, bytes]) -> None:
        store_trust(trust, {name: data for name, data in files.items() if name != "timestamp.json"})
        die()

    patch = pytest.MonkeyPatch()
    match step:
        case "before the chunks":
            patch.setattr(importer, "_keep_chunks", die)
        case "among the chunks":
            patch.setattr(ChunkStore, "sync", die)
        case "before the metadata":
            patch.setattr(importer, "store_trust", die)
        case "before the timestamp":
            patch.setattr(importer, "store_trust", store_some)
        case "before the row":
            patch.setattr(importer, "_record", die)

    async def run() -> None:
        where = Home(home)
        db = await Database.open(where.database)
        signer = Signer.open(where, Settings(fleet="harbour"))
        await import_package(package, where, db, ChunkStore(where.chunks), signer, now)

    asyncio.run(run())


@pytest.mark.parametrize(
    "step",
    ["before the chunks", "among the chunks", "before the metadata", "before the timestamp", "before the row"],
)
async def test_a_kill_leaves_nothing_half_done(depot: Depot, package: Path, tmp_path: Path, step: str) -> None:
    """No release is known, devices still accept what is published, and the next import succeeds."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_killed_at, args=(depot.home.path, package, LATER, step))
    process.start()
    await asyncio.to_thread(process.join, 60)
    assert process.exitcode == -signal.SIGKILL
    assert await depot.known() == []
    files = depot.trust()
    TrustStore(tmp_path / "device", files["1.root.json"]).refresh(files, LATER, ("gateway", "sensor"))
    db = await Database.open(depot.home.database)
    try:
        signer = Signer.open(depot.home, Settings(fleet="harbour"))
        record = await import_package(package, depot.home, db, depot.chunks, signer, LATER)
    finally:
        await db.close()
    assert await depot.known() == [record.id]
    async with depot.db.read() as conn:
        assert set(await releases.chunks(conn, record.id)) == depot.stored()
    files = depot.trust()
    trusted = TrustStore(tmp_path / "device", files["1.root.json"]).refresh(files, LATER, ("gateway",))
    assert trusted.release(record.path) is not None


async def test_a_home_without_metadata(depot: Depot, package: Path) -> None:
    """A lost trust folder is named, not guessed around."""
    for path in depot.home.trust.iterdir():
        path.unlink()
    with pytest.raises(NotFoundError, match="holds no trust metadata; restore it"):
        await depot.take(package)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(
            lambda artifact: {
                "files": [artifact.files[0].model_copy(update={"sha256": "0" * 64}), *artifact.files[1:]]
            },
            "file empty: not what was signed",
            id="an empty file's hash",
        ),
        pytest.param(
            lambda artifact: {
                "files": [*artifact.files[:-1], artifact.files[-1].model_copy(update={"sha256": "0" * 64})]
            },
            "file f5: not what was signed",
            id="the last file's hash",
        ),
        pytest.param(lambda _: {"sha256": "0" * 64}, "do not make the stream", id="the stream's hash"),
        pytest.param(lambda _: {"component": "os"}, "component app, found os", id="another component"),
    ],
)
async def test_a_publisher_that_errs_is_found_out(
    depot: Depot, monkeypatch: pytest.MonkeyPatch, change: Callable[[Artifact], dict[str, Any]], words: str
) -> None:
    """Signed by the right keys, yet no device could install it: refused before any device hears of it."""

    def pack(*arguments: Any, **named: Any) -> Packed:
        packed = pack_source(*arguments, **named)
        return replace(packed, artifact=packed.artifact.model_copy(update=change(packed.artifact)))

    monkeypatch.setattr(creating, "pack_source", pack)
    package = make_package(depot.home.publisher, depot.image, "1.1.0")
    with pytest.raises(OperationError, match=words):
        await depot.take(package)
    assert (depot.stored(), await depot.known()) == (set(), [])


async def test_a_single_file(depot: Depot) -> None:
    """A release need not be a directory."""
    file = depot.image / "f0"
    record = await depot.take(make_package(depot.home.publisher, file, "1.1.0", name="../single.package"))
    assert (record.image_bytes, await depot.known()) == (file.stat().st_size, ["gateway/1.1.0"])
