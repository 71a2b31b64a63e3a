"""Listing and signing what can be run in an artifact. Reads the first bytes of each file."""

from collections.abc import Sequence
from pathlib import Path

from securesystemslib.signer import Signer

from orchestrator.errors import OperationError
from orchestrator.publisher.sources import Source
from protocol.envelopes import encode, sign
from protocol.executables import EXECUTABLES_TYPE, HEAD_BYTES, MAX_LIST_BYTES, ExecutableList, is_executable
from protocol.identifiers import ReleaseName
from protocol.manifest import Artifact


def list_executables(source: Source, artifact: Artifact, name: ReleaseName) -> ExecutableList:
    """What can be run in a packed source.

    Raises:
        OperationError: A file cannot be read any more.
    """
    real = {file.path: file for file in source.files}
    hashes = {entry.path: entry.sha256 for entry in artifact.files}
    entries = [
        (path, sha256)
        for path, sha256 in sorted(hashes.items())
        if is_executable(path, real[path].mode, _head(real[path].real))
    ]
    return ExecutableList(product=name.product, component=artifact.component, version=name.version, entries=entries)


def sign_executables(listed: ExecutableList, signers: Sequence[Signer]) -> str:
    """The list as a DSSE envelope, signed by every given key.

    Raises:
        OperationError: It is longer than a device reads.
    """
    text = sign(encode(listed), EXECUTABLES_TYPE, *signers).decode()
    if len(text) > MAX_LIST_BYTES:
        raise OperationError(
            f"component {listed.component}: its list of executables has {len(text)} B, expected at most "
            f"{MAX_LIST_BYTES}; split the component"
        )
    return text


def _head(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise OperationError(f"{path}: cannot be read: {error.strerror or error}") from error
