"""A release that is one file: versioned files and a link that is switched in one step."""

import os
import shutil
from pathlib import Path

from device_client.installers.records import file_mode
from device_client.installers.slots import SlotInstaller
from device_client.installers.writing import copy_slice
from protocol.errors import ContentError, ErrorCode
from protocol.manifest import Artifact


class FileInstaller(SlotInstaller):
    """Writes an artifact's stream as one file."""

    def _write(self, stream: Path, artifact: Artifact, partial: Path) -> None:
        if artifact.kind != "file":
            raise ContentError(ErrorCode.INSTALL, "artifact: expected a single file, found a directory")
        source = os.open(stream, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            copy_slice(source, 0, artifact.length, partial, file_mode(artifact))
        finally:
            os.close(source)

    def _copy(self, source: Path, partial: Path) -> None:
        if not source.is_file():
            raise OSError("it is not a regular file")
        shutil.copy(source, partial)
        partial.chmod(source.stat().st_mode & 0o777)
