"""Is what lies on the disk exactly what the manifest lists? Nothing less, nothing more, no other mode."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from device_client.trees import Tree, read_tree
from device_client.verification.executables import check_programs
from protocol.errors import ContentError, ErrorCode
from protocol.executables import ExecutableList
from protocol.manifest import Artifact

DEFAULT_FILE_MODE = 0o644


def check_tree(place: Path, artifact: Artifact, listed: ExecutableList | None = None) -> None:
    """Hash everything below ``place`` and compare path, mode, length, sha256 and link targets. Blocks.

    Args:
        listed: What may be run, judged first; None where no list is asked for.

    Raises:
        ContentError: E_POSTINSTALL, naming the first difference; E_EXEC_UNLISTED or E_EXEC_SIGNATURE for a program.
    """
    try:
        tree = read_tree(place)
    except OSError as error:
        raise ContentError(ErrorCode.POSTINSTALL, f"{place.name}: cannot be read: {error.strerror or error}") from error
    if listed is not None:
        check_programs(tree, artifact, listed)
    for difference in differences(tree, artifact):
        raise ContentError(ErrorCode.POSTINSTALL, f"{place.name}: {difference}")


def differences(tree: Tree, artifact: Artifact) -> Iterator[str]:
    """Each way in which ``tree`` is not the artifact, one clause each. Pure."""
    files, links = _expected(artifact)
    found_files = {file.path: (file.mode, file.length, file.sha256) for file in tree.files}
    found_links = {link.path: link.target for link in tree.links}
    for path, (mode, length, sha256) in files.items():
        if path not in found_files:
            yield f"file {path!r} is missing"
            continue
        found_mode, found_length, found_sha256 = found_files[path]
        if found_length != length:
            yield f"file {path!r}: expected {length} B, found {found_length}"
        elif found_sha256 != sha256:
            yield f"file {path!r}: expected sha256 {sha256[:16]}, found {found_sha256[:16]}"
        if found_mode != mode:
            yield f"file {path!r}: expected mode {mode:04o}, found {found_mode:04o}"
    for path, target in links.items():
        if found_links.get(path) != target:
            yield f"link {path!r}: expected target {target!r}, found {found_links.get(path)!r}"
    folders = {str(parent) for path in (*files, *links) for parent in PurePosixPath(path).parents}
    unlisted = (found_files.keys() - files.keys()) | (found_links.keys() - links.keys())
    for path in sorted({*unlisted, *tree.others, *(set(tree.folders) - folders)}):
        yield f"{path!r} is not listed in the manifest"


def _expected(artifact: Artifact) -> tuple[dict[str, tuple[int, int, str]], dict[str, str]]:
    if artifact.kind == "file":
        mode = artifact.files[0].mode if len(artifact.files) == 1 else DEFAULT_FILE_MODE
        return {"": (mode, artifact.length, artifact.sha256)}, {}
    files = {entry.path: (entry.mode, entry.length, entry.sha256) for entry in artifact.files}
    return files, {entry.path: entry.target for entry in artifact.links}
