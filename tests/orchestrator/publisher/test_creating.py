"""A release from directory to package, opened again as the orchestrator and a device open it."""

import fcntl
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.errors import ConflictError, NotAllowedError, NotFoundError, OperationError
from orchestrator.package import CEK, CHUNK, PIECE, TRUST, PackageReader
from orchestrator.publisher.creating import Created, ReleaseSpec, create_release
from orchestrator.publisher.workspace import Workspace
from protocol.encryption import PACKAGE_RECIPIENT, open_chunk, open_delta_body, open_manifest, unwrap_key
from protocol.errors import TrustError
from protocol.identifiers import ReleaseName
from protocol.manifest import Manifest, Policy
from protocol.trust.trusted import Trusted
from protocol.trust.workflow import TrustStore
from tests.orchestrator.publisher.workshop import Publisher, make_publisher

SPEC = ReleaseSpec(
    name=ReleaseName("gateway", "1.1.0"),
    component="app",
    hardware=("rev-b",),
    requires={"os": "7"},
    conflicts={},
    policy=Policy(min_battery_percent=30),
)


def create(publisher: Publisher, tree: Path, version: str = "1.1.0", spec: ReleaseSpec = SPEC) -> Created:
    """Make a release beside the tree."""
    spec = replace(spec, name=ReleaseName(spec.name.product, version))
    return create_release(tree, tree.parent / f"{version}.package", spec, publisher.workspace, publisher.now)


def trusted(publisher: Publisher, scratch: Path) -> Trusted:
    """What a device believes that was given the first root."""
    files = publisher.served()
    return TrustStore(scratch / "device", files["1.root.json"]).refresh(files, publisher.now)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, but the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def test_a_release_is_what_a_device_accepts(publisher: Publisher, tmp_path: Path, tree: Path) -> None:
    """TUF lists it, its pieces are the target, the signer opens the manifest, its chunks make the files."""
    created = create(publisher, tree)
    target = trusted(publisher, tmp_path).release("gateway/1.1.0/manifest")
    assert target is not None
    assert target.info == created.info
    assert (target.info.hardware, target.info.requires, target.info.counter) == (["rev-b"], {"os": "7"}, 0)
    with PackageReader(created.path) as package:
        sealed = b"".join(package.read(PIECE + piece) for piece in target.info.pieces)
        assert (len(sealed), hashlib.sha256(sealed).hexdigest()) == (target.length, target.sha256)
        assert package.header.manifest_sha256 == target.sha256
        assert (package.header.fleet, package.header.product) == ("harbour", "gateway")
        key = publisher.package_key
        cek = unwrap_key(package.read(CEK), key, release=target.sha256, device=PACKAGE_RECIPIENT)
        manifest = Manifest.from_json(open_manifest(cek, sealed))
        artifact = manifest.artifacts[0]
        stream = b"".join(open_chunk(ref, package.read(CHUNK + ref.cid.hex())) for ref in artifact.chunk_refs())
        assert {name.removeprefix(TRUST): package.read(name) for name in package.names(TRUST)} == {
            name: data
            for name, data in publisher.workspace.load().metadata.items()
            if name in ("1.root.json", "1.targets.json", "2.snapshot.json", "2.releases-gateway.json")
        }
        assert len(list(package.names(CHUNK))) == target.info.chunk_count
    assert hashlib.sha256(stream).hexdigest() == artifact.sha256
    for entry in artifact.files:
        assert stream[entry.offset : entry.offset + entry.length] == (tree / entry.path).read_bytes()
    assert [(link.path, link.target) for link in artifact.links] == [("link", "d0/f0")]
    assert manifest.policy == target.info.policy == SPEC.policy


def test_a_second_release_stands_beside_the_first(publisher: Publisher, tmp_path: Path, tree: Path) -> None:
    """Both are listed; the second shares the chunks of what did not change."""
    first = create(publisher, tree)
    (tree / "d0" / "f0").write_bytes(b"changed")
    second = create(publisher, tree, "1.2.0")
    believed = trusted(publisher, tmp_path)
    assert believed.release("gateway/1.1.0/manifest") is not None
    assert believed.release("gateway/1.2.0/manifest") is not None
    assert (believed.roles["snapshot"].version, believed.roles["releases-gateway"].version) == (3, 3)
    with PackageReader(first.path) as old, PackageReader(second.path) as new:
        chunks = set(new.names(CHUNK))
        assert len(chunks & set(old.names(CHUNK))) > len(chunks) / 2


def test_without_dedup_nothing_is_shared(publisher: Publisher, tree: Path) -> None:
    """A release of the same tree under a secret of its own has no chunk in common."""
    first = create(publisher, tree)
    second = create(publisher, tree, "1.2.0", replace(SPEC, dedup=False))
    with PackageReader(first.path) as old, PackageReader(second.path) as new:
        assert not set(new.names(CHUNK)) & set(old.names(CHUNK))


def test_deltas_are_in_the_package(publisher: Publisher, tmp_path: Path, tree: Path) -> None:
    """Made against the former version's folder, sealed in the manifest, carried and counted as chunks."""
    old = shutil.copytree(tree, tmp_path / "old", symlinks=True)
    with (tree / "d0" / "f0").open("r+b") as file:
        file.write(b"changed")
    created = create(publisher, tree, spec=replace(SPEC, delta_from=(old,), delta_level=3))
    assert created.packed.delta_chunks > 0
    with PackageReader(created.path) as package:
        cek = unwrap_key(package.read(CEK), publisher.package_key, release=created.sha256, device=PACKAGE_RECIPIENT)
        sealed = b"".join(package.read(PIECE + piece) for piece in created.info.pieces)
        (artifact,) = Manifest.from_json(open_manifest(cek, sealed)).artifacts
        (deltas,) = artifact.deltas
        for _, delta in deltas.delta_refs():
            open_delta_body(delta, package.read(CHUNK + delta.cid.hex()))
        assert len(list(package.names(CHUNK))) == created.info.chunk_count
    assert created.info.chunk_count == created.packed.distinct_chunks + created.packed.delta_chunks


def test_a_former_version_that_is_not_there_stops_it(publisher: Publisher, tmp_path: Path, tree: Path) -> None:
    """No package, no metadata: as with everything else that stands in the way. So does an interruption."""
    before = contents(publisher.workspace.directory)
    with pytest.raises(NotFoundError, match="gone"):
        create(publisher, tree, spec=replace(SPEC, delta_from=(tmp_path / "gone",)))

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "old").write_bytes(b"something else")
    spec = replace(SPEC, delta_from=(tmp_path / "old",), delta_level=1)
    with pytest.raises(KeyboardInterrupt):
        create_release(tree, tmp_path / "p", spec, publisher.workspace, publisher.now, interrupt)
    assert contents(publisher.workspace.directory) == before
    assert not list(tmp_path.glob("*.package*"))
    assert not list(tmp_path.glob("p*"))


def test_the_counter_stays_unless_raised(publisher: Publisher, tree: Path) -> None:
    """A release keeps its component's highest security counter; a person raises it."""
    assert create(publisher, tree, "1").info.counter == 0
    assert create(publisher, tree, "2", replace(SPEC, counter=4)).info.counter == 4
    assert create(publisher, tree, "3").info.counter == 4
    assert create(publisher, tree, "4", replace(SPEC, component="other")).info.counter == 0


def _remove_keys(publisher: Publisher) -> None:
    for path in publisher.workspace.keys.glob("releases-gateway-*.key"):
        path.unlink()


def _open_key(publisher: Publisher) -> None:
    (publisher.workspace.keys / "snapshot-1.key").chmod(0o644)


def _damage_key(publisher: Publisher) -> None:
    (publisher.workspace.keys / "snapshot-1.key").write_bytes(b"no key")


def _damage_metadata(publisher: Publisher) -> None:
    path = publisher.workspace.metadata / "1.targets.json"
    path.write_bytes(path.read_bytes().replace(b"releases-gateway", b"releases-gatewaz"))


def _cut_metadata(publisher: Publisher) -> None:
    path = publisher.workspace.metadata / "1.snapshot.json"
    path.write_bytes(path.read_bytes()[:-20])


def _remove_folder(publisher: Publisher) -> None:
    shutil.rmtree(publisher.workspace.directory)


@pytest.mark.parametrize(
    ("harm", "error", "says"),
    [
        (_remove_keys, NotAllowedError, "needs 1 keys, found 0"),
        (_open_key, NotAllowedError, "make it 600"),
        (_damage_key, OperationError, "snapshot-1.key: expected an unencrypted private key"),
        (_damage_metadata, OperationError, "targets metadata is not signed"),
        (_cut_metadata, OperationError, "1.snapshot.json is damaged"),
        (_remove_folder, NotFoundError, "flagship init"),
        (lambda p: p.workspace.secret.unlink(), NotFoundError, "content.secret: is missing"),
        (lambda p: p.workspace.secret.write_bytes(b"short"), OperationError, "expected 32 bytes, found 5"),
        (lambda p: p.workspace.package_key.write_bytes(b""), OperationError, "X25519 public key"),
        (lambda p: (p.workspace.metadata / "1.releases-gateway.json").unlink(), OperationError, "is missing"),
        (lambda p: (p.workspace.metadata / "1.root.json").unlink(), NotFoundError, "no root metadata"),
    ],
)
def test_keys_that_do_not_serve(
    publisher: Publisher, tree: Path, harm: Callable[[Publisher], object], error: type[OperationError], says: str
) -> None:
    """Each is one sentence, and neither a package nor a part of one is left."""
    harm(publisher)
    with pytest.raises(error, match=says) as refused:
        create(publisher, tree)
    assert "\n" not in str(refused.value)
    assert not list(tree.parent.glob("*.package*"))


def test_a_folder_of_something_else_is_left_alone(publisher: Publisher, tree: Path, tmp_path: Path) -> None:
    """``--keys`` that names the wrong folder: not even a lock is left in it."""
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(NotFoundError, match=r"content\.secret: is missing"):
        create(replace(publisher, workspace=Workspace(other)), tree)
    assert list(other.iterdir()) == []


def test_expired_metadata_is_not_built_upon(publisher: Publisher, tree: Path) -> None:
    """Metadata that no device would accept stops the release."""
    with pytest.raises(OperationError, match="root metadata version 1 expired 2027-11-24; renew it with"):
        create(replace(publisher, now=publisher.now + timedelta(days=366)), tree)
    with pytest.raises(OperationError, match="targets metadata version 1 expired 2027-05-23; renew it with"):
        create(replace(publisher, now=publisher.now + timedelta(days=181)), tree)


def test_an_expired_snapshot_is_renewed_by_a_release(publisher: Publisher, tmp_path: Path, tree: Path) -> None:
    """The roles that a release signs anew may have run out."""
    later = replace(publisher, now=publisher.now + timedelta(days=100))
    with pytest.raises(TrustError):
        trusted(later, tmp_path)
    create(later, tree)
    assert trusted(later, tmp_path).release("gateway/1.1.0/manifest") is not None


def test_two_keys_are_needed_where_two_are_demanded(tmp_path: Path, tree: Path) -> None:
    """With both keys a device accepts it; with one nothing is made."""
    publisher = make_publisher(tmp_path / "home", releases=2)
    create(publisher, tree)
    assert trusted(publisher, tmp_path).release("gateway/1.1.0/manifest") is not None
    (publisher.workspace.keys / "releases-gateway-1.key").unlink()
    with pytest.raises(NotAllowedError, match="role releases-gateway needs 2 keys, found 1"):
        create(publisher, tree, "1.2.0")


def test_a_version_is_released_once(publisher: Publisher, tree: Path) -> None:
    """A name that was signed never gets another content, and the working copy stays as it is."""
    create(publisher, tree).path.unlink()
    before = contents(publisher.workspace.directory)
    with pytest.raises(ConflictError, match=r"gateway/1\.1\.0: this version is in the metadata already"):
        create(publisher, tree)
    assert contents(publisher.workspace.directory) == before
    assert not list(tree.parent.glob("*.package*"))


def test_a_product_without_a_role_is_refused(publisher: Publisher, tree: Path) -> None:
    """The products that the keys know are named."""
    spec = replace(SPEC, name=ReleaseName("toaster", "1"))
    with pytest.raises(NotFoundError, match="product toaster: the release keys know gateway"):
        create(publisher, tree, spec=spec)


def test_a_package_in_the_way_is_not_overwritten(publisher: Publisher, tree: Path) -> None:
    """What lies there stays."""
    (tree.parent / "1.1.0.package").write_bytes(b"mine")
    with pytest.raises(ConflictError, match="is there already"):
        create(publisher, tree)
    assert (tree.parent / "1.1.0.package").read_bytes() == b"mine"


def test_a_bad_source_changes_nothing(publisher: Publisher, tree: Path) -> None:
    """A source that is refused leaves metadata and folder as they were."""
    before = contents(publisher.workspace.directory)
    (tree / "bad").symlink_to("/etc")
    with pytest.raises(OperationError, match="leaves the tree"):
        create(publisher, tree)
    assert contents(publisher.workspace.directory) == before
    assert not list(tree.parent.glob("*.package*"))


def test_one_release_at_a_time(publisher: Publisher, tree: Path) -> None:
    """Two at once would sign two metadata files of one version."""
    with (publisher.workspace.directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="another command works with them"):
            create(publisher, tree)


def test_metadata_that_no_snapshot_names_is_not_served(publisher: Publisher, tmp_path: Path, tree: Path) -> None:
    """A cut between the releases role and its snapshot leaves a file that the next release writes over."""
    (publisher.workspace.metadata / "2.releases-gateway.json").write_bytes(b"left over")
    created = create(publisher, tree)
    assert trusted(publisher, tmp_path).release("gateway/1.1.0/manifest") is not None
    with PackageReader(created.path) as package:
        assert b"left over" not in [package.read(name) for name in package.names(TRUST)]
