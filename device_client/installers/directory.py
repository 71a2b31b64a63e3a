"""A release that is a directory: versioned directories and a link that is switched in one step."""

import os
import shutil
import stat
from pathlib import Path, PurePosixPath

from device_client.installers.slots import SlotInstaller
from device_client.installers.writing import copy_slice
from device_client.trees import read_tree
from protocol.errors import ContentError, ErrorCode
from protocol.manifest import Artifact, check_link

FOLDER_MODE = 0o755


class DirectoryInstaller(SlotInstaller):
    """Writes the files of an artifact's stream as a tree."""

    def _write(self, stream: Path, artifact: Artifact, partial: Path) -> None:
        if artifact.kind != "directory":
            raise ContentError(ErrorCode.INSTALL, "artifact: expected a directory, found a single file")
        _make_folders(partial, [*(file.path for file in artifact.files), *(link.path for link in artifact.links)])
        source = os.open(stream, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for entry in artifact.files:
                copy_slice(source, entry.offset, entry.length, partial / entry.path, entry.mode)
        finally:
            os.close(source)
        # Last, so that no file can be written through one.
        for link in artifact.links:
            check_link(link.path, link.target)
            (partial / link.path).symlink_to(link.target)

    def _copy(self, source: Path, partial: Path) -> None:
        if not source.is_dir():
            raise NotADirectoryError(20, "it is not a directory")
        tree = read_tree(source)
        if tree.others:
            raise OSError(f"{tree.others[0]} is neither a file nor a link")
        for link in tree.links:
            try:
                check_link(link.path, link.target)
            except ValueError as error:
                raise OSError(str(error)) from error
        shutil.copytree(source, partial, symlinks=True, copy_function=shutil.copy)
        for folder in ("", *tree.folders):
            (partial / folder).chmod(FOLDER_MODE)
        for file in tree.files:
            (partial / file.path).chmod(stat.S_IMODE(file.mode) & 0o777)


def _make_folders(root: Path, paths: list[str]) -> None:
    folders = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    for folder in sorted(folders | {"."}):
        (root / folder).mkdir(mode=FOLDER_MODE)
        (root / folder).chmod(FOLDER_MODE)
