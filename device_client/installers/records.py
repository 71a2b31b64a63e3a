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

    def fits(self, tree: Tree) -> bool:
        """Whether ``tree`` is exactly this release."""
        files = tuple(sorted((File(*row) for row in self.files), key=lambda file: file.path))
        links = tuple(sorted((Link(*row) for row in self.links), key=lambda link: link.path))
        return not tree.others and tree.files == files and tree.links == links


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
    record = look_up(releases, name)
    try:
        return record is not None and record.fits(read_tree(releases / name))
    except OSError:
        return False
