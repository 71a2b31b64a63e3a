"""The file tree that an update module works in, as Mender's client 3.4 writes it.

version  current_artifact_name  current_artifact_group  current_device_type
header/  artifact_name artifact_group payload_type header-info type-info meta-data
files/   the payloads, where the module did not take them as streams
tmp/     the module's own; what it keeps there is its way back, so the tree lies on storage that survives a reboot
"""

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from device_client.durable import make_directory, sync_directory
from device_client.installers.installer import InstallError
from device_client.installers.mender_state import MAX_PAYLOADS
from device_client.installers.writing import copy_slice
from protocol.manifest import Artifact

FOLDER_MODE = 0o700
FILE_MODE = 0o600
_NAME = re.compile(r"[^\s/\x00-\x1f\x7f]{1,255}\Z")
"""A module reads it from a line ``streams/NAME SIZE``, so it holds no space."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A file of the artifact: a slice of the release's stream.

    Attributes:
        offset: Where it begins, in bytes.
        length: Bytes.
        sha256: Hex.
    """

    name: str
    offset: int
    length: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Header:
    """What a module is told about the artifact and the device.

    Attributes:
        payload_type: The module's name.
        artifact_name: Of what is to be installed.
        current_artifact_name: Of what runs; empty where nothing does.
    """

    payload_type: str
    artifact_name: str
    current_artifact_name: str
    device_type: str


def payloads_of(artifact: Artifact) -> tuple[Payload, ...]:
    """The payloads that a module is fed with: the file, or each file of a flat directory.

    Raises:
        InstallError: A module could not be given them: a link, a folder, a name with a space, too many of them.
    """
    payloads = tuple(Payload(entry.path, entry.offset, entry.length, entry.sha256) for entry in artifact.files)
    if artifact.kind == "file":
        payloads = (Payload(artifact.name, 0, artifact.length, artifact.sha256),)
    if artifact.links:
        raise InstallError(f"link {artifact.links[0].path[:120]!r}: an update module takes regular files only")
    if len(payloads) > MAX_PAYLOADS:
        raise InstallError(f"artifact: expected at most {MAX_PAYLOADS} files for an update module; pack them in one")
    for payload in payloads:
        if payload.name in (".", "..") or not _NAME.match(payload.name):
            raise InstallError(
                f"file {payload.name[:120]!r}: an update module takes names without '/' and spaces; pack files in one"
            )
    return payloads


def make_tree(tree: Path, header: Header) -> None:
    """Write the tree without its payloads, in place of any former one; whoever needs it durable syncs it.

    Raises:
        OSError: It cannot be written.
    """
    drop_tree(tree)
    make_directory(tree.parent, FOLDER_MODE)
    for folder in (tree, tree / "header", tree / "tmp"):
        folder.mkdir(mode=FOLDER_MODE)
    kind, name = header.payload_type, header.artifact_name
    info = {
        "payloads": [{"type": kind}],
        "artifact_provides": {"artifact_name": name},
        "artifact_depends": {"device_type": [header.device_type]},
    }
    type_info = {
        "type": kind,
        "artifact_provides": {f"rootfs-image.{kind}.version": name},
        "clears_artifact_provides": [f"rootfs-image.{kind}.*"],
    }
    content = {
        "version": "3",
        "current_artifact_name": header.current_artifact_name,
        "current_artifact_group": "",
        "current_device_type": header.device_type,
        "header/artifact_name": name,
        "header/artifact_group": "",
        "header/payload_type": kind,
        "header/header-info": json.dumps(info, separators=(",", ":")),
        "header/type-info": json.dumps(type_info, separators=(",", ":")),
        "header/meta-data": "",
    }
    for place, text in content.items():
        _write(tree / place, text.encode())


def store_payloads(tree: Path, source: int, payloads: tuple[Payload, ...]) -> None:
    """Write the payloads to ``files/``, where an earlier try left nothing; whoever needs them durable syncs them.

    Args:
        source: The release's stream, an open file.

    Raises:
        ContentError: E_INSTALL: the stream is too short.
        OSError: They cannot be written.
    """
    folder = tree / "files"
    folder.mkdir(mode=FOLDER_MODE)
    for payload in payloads:
        copy_slice(source, payload.offset, payload.length, folder / payload.name, FILE_MODE)


def drop_tree(tree: Path) -> None:
    """Remove the tree; one that is there is whole, at any instant."""
    going = tree.with_name(f"{tree.name}.gone")
    if os.path.lexists(going):
        shutil.rmtree(going)
    if os.path.lexists(tree):
        tree.rename(going)
        sync_directory(tree.parent)
        shutil.rmtree(going)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
