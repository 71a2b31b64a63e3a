"""Programs on the disk against the signed list: read from what lies there, not from what the manifest says."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from device_client.verification.files import check_tree
from protocol.errors import ContentError, ErrorCode
from protocol.executables import ExecutableList
from protocol.manifest import Artifact

MakeArtifact = Callable[[dict[str, tuple[int, bytes]], dict[str, str]], tuple[Artifact, bytes]]
MakeFile = Callable[[bytes, int | None], tuple[Artifact, bytes]]
PROGRAMS = {"bin/app": (0o755, b"\x7fELF program"), "lib/a.py": (0o644, b"a = 1\n")}
FILES = {**PROGRAMS, "etc/app.conf": (0o644, b"x = 1\n")}


def listed(files: dict[str, tuple[int, bytes]]) -> ExecutableList:
    """What the team signed."""
    entries = [(path, hashlib.sha256(content).hexdigest()) for path, (_, content) in sorted(files.items())]
    return ExecutableList(product="gateway", component="app", version="1.1.0", entries=entries)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The release as it was extracted."""
    for path, (mode, content) in FILES.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
        (tmp_path / path).chmod(mode)
    return tmp_path


def refused(tree: Path, artifact: Artifact, executables: ExecutableList) -> ErrorCode:
    """The code with which a tree is refused."""
    with pytest.raises(ContentError) as caught:
        check_tree(tree, artifact, executables)
    return caught.value.code


def test_what_was_signed_passes(tree: Path, directory_artifact: MakeArtifact) -> None:
    """Programs as listed, and files that cannot be run beside them."""
    check_tree(tree, directory_artifact(FILES, {})[0], listed(PROGRAMS))


def test_a_program_that_release_keys_signed_and_the_team_did_not(tree: Path, directory_artifact: MakeArtifact) -> None:
    """The manifest lists it, so the files fit; the list does not, so it is refused."""
    artifact = directory_artifact(FILES, {})[0]
    assert refused(tree, artifact, listed({"bin/app": PROGRAMS["bin/app"]})) is ErrorCode.EXEC_UNLISTED
    other = listed({**PROGRAMS, "bin/app": (0o755, b"\x7fELF another")})
    assert refused(tree, artifact, other) is ErrorCode.EXEC_SIGNATURE


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        pytest.param(lambda t: (t / "bin/app").write_bytes(b"\x7fELF prograM"), ErrorCode.EXEC_SIGNATURE, id="changed"),
        pytest.param(lambda t: (t / "lib/b.py").write_bytes(b""), ErrorCode.EXEC_UNLISTED, id="added module"),
        pytest.param(lambda t: (t / "etc/app.conf").chmod(0o755), ErrorCode.EXEC_UNLISTED, id="made executable"),
        pytest.param(lambda t: (t / "etc/x").write_bytes(b"#!/bin/sh\n"), ErrorCode.EXEC_UNLISTED, id="added script"),
        pytest.param(lambda t: (t / "etc/x").write_bytes(b"data"), ErrorCode.POSTINSTALL, id="added data"),
    ],
)
def test_what_was_changed_after_extraction_is_found(
    tree: Path, directory_artifact: MakeArtifact, spoil: Callable[[Path], object], code: ErrorCode
) -> None:
    """A program by the list's codes, everything else by the manifest's."""
    artifact = directory_artifact(FILES, {})[0]
    spoil(tree)
    assert refused(tree, artifact, listed(PROGRAMS)) is code


def test_a_single_file_is_listed_by_its_name(tmp_path: Path, file_artifact: MakeFile) -> None:
    """An artifact that is one program has one entry."""
    artifact, content = file_artifact(b"\x7fELF", 0o755)
    place = tmp_path / "installed"
    place.write_bytes(content)
    place.chmod(0o755)
    check_tree(place, artifact, listed({"app": (0o755, content)}))
    assert refused(place, artifact, listed({})) is ErrorCode.EXEC_UNLISTED
