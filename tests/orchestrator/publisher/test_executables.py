"""The list of executables as ``release create`` makes it: everything that a device would find, signed by the team."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import NotAllowedError
from orchestrator.package import CEK, PIECE, PackageReader
from orchestrator.publisher.creating import create_release
from protocol.encryption import PACKAGE_RECIPIENT, open_manifest, unwrap_key
from protocol.executables import open_list
from protocol.manifest import Artifact, Manifest
from protocol.trust.workflow import TrustStore
from tests.orchestrator.publisher.test_creating import SPEC
from tests.orchestrator.publisher.workshop import Publisher, make_publisher


@pytest.fixture
def codesigned(tmp_path: Path) -> Publisher:
    """A publisher whose component ``app`` has a team that signs its programs."""
    return make_publisher(tmp_path / "codesigned", codesign=("app",))


def artifact_of(publisher: Publisher, package: Path) -> Artifact:
    """The artifact, opened as the signer opens it."""
    with PackageReader(package) as reader:
        digest = reader.header.manifest_sha256
        cek = unwrap_key(reader.read(CEK), publisher.package_key, release=digest, device=PACKAGE_RECIPIENT)
        sealed = b"".join(reader.read(name) for name in reader.names(PIECE))
    return Manifest.from_json(open_manifest(cek, sealed)).artifacts[0]


def test_a_release_lists_its_programs(codesigned: Publisher, tmp_path: Path, tree: Path) -> None:
    """By mode, by content and by name; verified with the keys that the offline metadata names."""
    (tree / "d0" / "run").write_bytes(b"data")
    (tree / "d0" / "run").chmod(0o755)
    (tree / "d1" / "script").write_bytes(b"#!/bin/sh\n")
    (tree / "d2" / "module.py").write_bytes(b"")
    created = create_release(tree, tmp_path / "p", SPEC, codesigned.workspace, codesigned.now)
    files = codesigned.served()
    trusted = TrustStore(tmp_path / "device", files["1.root.json"]).refresh(files, codesigned.now)
    verify = trusted.verify_codesign("app")
    assert verify is not None
    listed = open_list(artifact_of(codesigned, tmp_path / "p"), created.info, verify)
    assert [path for path, _ in listed.entries] == ["d0/run", "d1/script", "d2/module.py"]
    assert trusted.verify_codesign("os") is None


def test_without_the_role_there_is_no_list(publisher: Publisher, tmp_path: Path, tree: Path) -> None:
    """A fleet of one person may leave codesign unused; its manifests are as before."""
    create_release(tree, tmp_path / "p", SPEC, publisher.workspace, publisher.now)
    assert artifact_of(publisher, tmp_path / "p").executables == ""


def test_a_release_without_the_teams_key_is_not_made(codesigned: Publisher, tmp_path: Path, tree: Path) -> None:
    """Release keys alone do not make one: nothing is written."""
    (codesigned.workspace.keys / "codesign-app-1.key").unlink()
    with pytest.raises(NotAllowedError, match="codesign-app needs 1"):
        create_release(tree, tmp_path / "p", SPEC, codesigned.workspace, codesigned.now)
    assert not (tmp_path / "p").exists()
    other = replace(SPEC, component="os")
    create_release(tree, tmp_path / "p", other, codesigned.workspace, codesigned.now)
