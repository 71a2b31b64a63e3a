"""What a release looked like when it was put in place: a list of paths, modes and hashes beside it.

The list tells later whether the way back is intact, and which version a directory holds.
"""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from device_client.durable import make_directory, read_capped, write_durably
from device_client.errors import DeviceError
from device_client.trees import File, Link, Tree, read_tree
from protocol.identifiers import VersionText
from protocol.manifest import Artifact

MAX_RECORD_BYTES = 128 * 2**20
DIRECTORY = ".records"
FILE_MODE = 0o644


class Record(BaseModel):
    """One release as it was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: VersionText
    digest: str
    files: list[tuple[str, int, int, str]]
    links: list[tuple[str, str]]

    def difference(self, tree: Tree) -> str:
        """The first way in which ``tree`` is not this release, in one clause; empty where it is exactly this."""
        files = {row[0]: File(*row) for row in self.files}
        links = {row[0]: Link(*row) for row in self.links}
        found: dict[str, File | Link] = {file.path: file for file in tree.files}
        found |= {link.path: link for link in tree.links}
        for path, expected in sorted((files | links).items()):
            if found.get(path) != expected:
                return _difference(expected, found.get(path))
        strangers = sorted({*(found.keys() - files.keys() - links.keys()), *tree.others})
        return f"{strangers[0]!r} was not written with it" if strangers else ""


def record_artifact(artifact: Artifact, version: str, digest: str) -> Record:
    """The record of a release that is about to be written from a manifest."""
    if artifact.kind == "file":
        files = [("", file_mode(artifact), artifact.length, artifact.sha256)]
        return Record(version=version, digest=digest, files=files, links=[])
    return Record(
        version=version,
        digest=digest,
        files=[(entry.path, entry.mode, entry.length, entry.sha256) for entry in artifact.files],
        links=[(entry.path, entry.target) for entry in artifact.links],
    )


def record_tree(tree: Tree, version: str, digest: str) -> Record:
    """The record of what already lies on the disk."""
    return Record(
        version=version,
        digest=digest,
        files=[(file.path, file.mode, file.length, file.sha256) for file in tree.files],
        links=[(link.path, link.target) for link in tree.links],
    )


def file_mode(artifact: Artifact) -> int:
    """The mode of an artifact that is one file: of its only entry, where the publisher gave one."""
    return artifact.files[0].mode if len(artifact.files) == 1 else FILE_MODE


def keep(releases: Path, name: str, record: Record) -> None:
    """Write the record of the release ``name``, durably."""
    make_directory(releases / DIRECTORY)
    data = json.dumps(record.model_dump(mode="json"), separators=(",", ":")).encode()
    write_durably(releases / DIRECTORY / f"{name}.json", data)


def look_up(releases: Path, name: str) -> Record | None:
    """The record of a release; None where there is none, or it is damaged."""
    try:
        return Record.model_validate_json(read_capped(releases / DIRECTORY / f"{name}.json", MAX_RECORD_BYTES))
    except (DeviceError, ValidationError):
        return None


def is_intact(releases: Path, name: str) -> bool:
    """Whether the release lies there exactly as it was written; hashes all of it."""
    return not fault(releases, name)


def fault(releases: Path, name: str) -> str:
    """The first way in which a release is not as it was written, in one clause; empty where it is. Hashes all of it."""
    record = look_up(releases, name)
    if record is None:
        return "the record of how it was written is missing or damaged"
    try:
        return record.difference(read_tree(releases / name))
    except OSError as error:
        return f"{error.filename or name} cannot be read: {error.strerror or error}"


def _difference(expected: File | Link, found: File | Link | None) -> str:
    what = f"{'link' if isinstance(expected, Link) else 'file'} {expected.path!r}" if expected.path else "the file"
    match expected, found:
        case _, None:
            return f"{what} is missing"
        case Link(target=target), Link(target=other):
            return f"{what}: expected target {target!r}, found {other!r}"
        case File(), File() if expected.length != found.length:
            return f"{what}: expected {expected.length} B, found {found.length}"
        case File(), File() if expected.sha256 != found.sha256:
            return f"{what}: expected sha256 {expected.sha256[:16]}, found {found.sha256[:16]}"
        case File(), File():
            return f"{what}: expected mode {expected.mode:04o}, found {found.mode:04o}"
        case _:
            return f"{what}: something of another kind is there"
