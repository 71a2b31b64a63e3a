"""The publisher's metadata files as a set: which are the newest, and whether they fit their topic. Pure."""

from collections.abc import Mapping
from typing import TypeVar

from tuf.api.metadata import Metadata, Root, Snapshot, Targets
from tuf.api.serialization import DeserializationError

from orchestrator.errors import NotFoundError, OperationError
from protocol.errors import TrustError
from protocol.trust.bundle import pack_bundle

S = TypeVar("S", Root, Targets, Snapshot)


def check_fits(what: str, files: Mapping[str, bytes]) -> None:
    """See that what devices are given at once fits its topic: the newest files, without the older roots.

    Raises:
        OperationError: It does not.
    """
    newest = f"{newest_version(files, 'root')}.root.json"
    current = current_files(files)
    try:
        pack_bundle({name: data for name, data in current.items() if name == newest or not name.endswith(".root.json")})
    except TrustError as error:
        raise OperationError(f"{what}: {error.detail}") from error


def current_files(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """What a client needs: every root, the newest snapshot, and of the other roles what that snapshot names.

    Raises:
        OperationError: One of them is missing.
    """
    newest = f"{newest_version(files, 'snapshot')}.snapshot.json"
    snapshot = load_metadata(files, newest, Snapshot)
    names = [name for name in files if name.endswith(".root.json")]
    names += [newest, *(f"{meta.version}.{file}" for file, meta in snapshot.signed.meta.items())]
    missing = [name for name in names if name not in files]
    if missing:
        raise OperationError(f"release keys: metadata {missing[0]} is missing; restore the working copy")
    return {name: files[name] for name in names}


def load_metadata(files: Mapping[str, bytes], name: str, kind: type[S]) -> Metadata[S]:
    """One file of the working copy.

    Raises:
        OperationError: It is missing, damaged or of another kind.
    """
    data = files.get(name)
    if data is None:
        raise OperationError(f"release keys: metadata {name} is missing; restore the working copy")
    try:
        metadata = Metadata[S].from_bytes(data)
    except DeserializationError as error:
        raise OperationError(f"release keys: metadata {name} is damaged; restore the working copy") from error
    if not isinstance(metadata.signed, kind):
        raise OperationError(f"release keys: metadata {name} is of another kind; restore the working copy")
    return metadata


def newest_version(files: Mapping[str, bytes], role: str) -> int:
    """The highest version of a role.

    Raises:
        NotFoundError: There is none.
    """
    versions = [int(name.split(".")[0]) for name in files if name.endswith(f".{role}.json") and name[0].isdigit()]
    if not versions:
        raise NotFoundError(
            f"release keys: no {role} metadata; make keys with 'flagship init DIR' or name their folder with --keys"
        )
    return max(versions)
