"""What the publisher packs, a device installs: the same files, modes and links."""

import random
from pathlib import Path

import pytest

from device_client.download.store import ArtifactStore
from device_client.installers.directory import DirectoryInstaller
from device_client.installers.file import FileInstaller
from device_client.verification.files import check_tree
from orchestrator.publisher.packing import pack


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_packed_image_is_installed_as_it_was(tmp_path: Path, kind: str) -> None:
    """Through the device's own store and installer, any order of chunks, to a tree that has no difference."""
    source, image = random.Random(11), tmp_path / "image"
    for number in range(20):
        path = image / f"d{number % 4}" / "sub" / f"f {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.randbytes(source.randrange(0, 70_000)))
        path.chmod(0o755 if number % 2 else 0o640)
    (image / "d0" / "link").symlink_to("../d1/sub")
    place = image if kind == "directory" else image / "d1" / "sub" / "f 1"
    chunks: dict[str, bytes] = {}
    artifact = pack(place, "app", b"s" * 32, chunks.__setitem__).artifact
    (tmp_path / "staging").mkdir()
    store = ArtifactStore(tmp_path / "staging", artifact)
    order = list(store.resume())
    source.shuffle(order)
    assert store.write({cid: chunks[cid] for cid in order}) == []
    stream = store.complete()
    store.close()
    kinds = {"directory": DirectoryInstaller, "file": FileInstaller}
    installer = kinds[kind](tmp_path / "releases", tmp_path / "current", tmp_path / "state.json")
    installed = installer.install(stream, artifact, "1.1.0", "a" * 64)
    check_tree(installed, artifact)
    if kind == "file":
        assert installed.read_bytes() == place.read_bytes()
        return
    for path in image.rglob("*"):
        twin = installed / path.relative_to(image)
        if path.is_symlink():
            assert twin.readlink() == path.readlink()
        elif path.is_file():
            assert (twin.read_bytes(), twin.stat().st_mode) == (path.read_bytes(), path.stat().st_mode)
