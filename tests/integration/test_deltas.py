"""From the publisher to the tree on the disk with deltas: from the factory's version, and from releases."""

import random
import shutil
from pathlib import Path

import pytest

from device_client.download.base_stream import Base
from device_client.download.downloader import Transfer
from device_client.download.store import ArtifactStore
from device_client.installers.file import FileInstaller
from orchestrator.publisher.deltas import pack_with_deltas
from orchestrator.publisher.packing import pack
from tests.integration.small_fleet import SmallFleet, installed, make_package, make_tree, small_fleet

SECRET = b"s" * 32
SIZE = 1_500_000


def edited(tree: Path, version: str) -> Path:
    """The next version of a tree: a few bytes changed in the middle of its data, one file added."""
    new = tree.with_name(f"tree-{version}")
    shutil.copytree(tree, new)
    (new / "version").write_text(f"{version}\n")
    (new / "added").write_text("a new file\n")
    with (new / "data").open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(f"edited for {version}".encode())
    return new


async def update(fleet: SmallFleet, tree: Path, version: str, *olds: Path) -> Transfer:
    """Roll a version out; what its transfer took."""
    await fleet.publish(make_package(fleet.home, tree, version, delta_from=olds))
    rollout = f"r-{version.replace('.', '-')}"
    await fleet.roll_out(rollout, version)
    await fleet.until_state(rollout, "completed")
    assert installed(fleet.devices["d1"]) == version
    assert (fleet.devices["d1"].current / "data").read_bytes() == (tree / "data").read_bytes()
    transfer = fleet.agents["d1"]._fetcher.last
    assert transfer is not None
    return transfer


async def test_minor_updates_cost_little() -> None:
    """First from what left the factory, where no cuts were noted; then from a release, where they were."""
    async with small_fleet() as fleet:
        first = make_tree(fleet.place, "1.0.0", SIZE)
        await fleet.enrol(["d1"], first)
        fleet.start_agents(["d1"])
        second, third = edited(first, "1.1.0"), edited(edited(first, "1.1.1"), "1.2.0")
        transfer = await update(fleet, second, "1.1.0", first)
        assert transfer.delta_bytes > 0
        transfer = await update(fleet, third, "1.2.0", second, first)
        assert transfer.copied_bytes > 0.7 * SIZE
        assert transfer.delta_bytes > 0
        assert transfer.fetched_bytes < 0.02 * SIZE
        assert transfer.copied_bytes + transfer.resumed_bytes <= transfer.present_bytes == transfer.total_bytes
        assert transfer.refused == 0


@pytest.mark.parametrize("deltas", [True, False], ids=["with deltas", "copies alone"])
def test_a_single_file_is_made_from_the_one_that_runs(tmp_path: Path, deltas: bool) -> None:
    """An image that is one file: by deltas a thousandth is fetched, by copies the chunks that changed."""
    data = bytearray(random.Random(1).randbytes(SIZE))
    old, new = tmp_path / "a" / "image", tmp_path / "b" / "image"
    for path in (old, new):
        path.parent.mkdir()
        path.write_bytes(data)
        data[SIZE // 2] ^= 1
    installer = FileInstaller(tmp_path / "releases", tmp_path / "current", tmp_path / "state")
    artifact = pack(old, "app", SECRET, lambda _cid, _data: None).artifact
    installer.install(old, artifact, "1.0.0", artifact.sha256)
    installer.activate()
    chunks: dict[str, bytes] = {}
    packed = pack_with_deltas(new, [old] if deltas else [], "app", SECRET, chunks.__setitem__)
    (tmp_path / "staging").mkdir()
    store = ArtifactStore(tmp_path / "staging", packed.artifact, Base(installer.streams()))
    missing = store.resume()
    assert sum(missing.values()) < SIZE / 1000 if deltas else 50_000 < sum(missing.values()) < SIZE / 3
    assert store.write({cid: chunks[cid] for cid in missing}) == []
    assert store.complete().read_bytes() == new.read_bytes()
    assert (store.delta_bytes > 0) == deltas
    assert store.copied_bytes > SIZE * 2 / 3
    store.close()
