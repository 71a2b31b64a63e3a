"""The file of a proposal: written whole, and checked whenever it is read: form, versions, every signature in it."""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets
from tuf.api.serialization import DeserializationError

from orchestrator.errors import ConflictError, NotAllowedError, NotFoundError, OperationError, UsageError
from orchestrator.publisher.holders import Holder, Holders
from orchestrator.publisher.proposals import Proposal, newest_files, role_of, verify_signature
from orchestrator.publisher.signing import read_repository
from orchestrator.publisher.trust_roles import is_releases
from protocol.identifiers import IdText

MAX_PROPOSAL_BYTES = 2 * 2**20


class _File(BaseModel):
    """The file as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["flagship-trust-proposal"] = "flagship-trust-proposal"
    version: Literal[1] = 1
    fleet: IdText
    made: AwareDatetime
    reason: Annotated[str, StringConstraints(max_length=500)] = ""
    before: Annotated[dict[str, str], Field(max_length=1024)]
    files: Annotated[dict[str, str], Field(min_length=1, max_length=1024)]
    holders: dict[str, Holder] = {}


def read_proposal(raw: bytes, name: str) -> Proposal:
    """Read a proposal and check all that can be checked without knowing the fleet.

    Args:
        name: Of the file, for messages.

    Raises:
        UsageError: It is not a proposal.
        NotAllowedError: A signature in it does not hold, or is of nobody who has a say.
        OperationError: It contradicts itself.
    """
    if len(raw) > MAX_PROPOSAL_BYTES:
        raise UsageError(f"{name}: expected a proposal of at most {MAX_PROPOSAL_BYTES} B, found a larger file")
    try:
        file = _File.model_validate_json(raw)
    except (ValidationError, RecursionError) as error:
        raise UsageError(f"{name}: not a proposal of 'flagship trust propose'; ask for the file again") from error
    base = read_repository({name: text.encode() for name, text in file.before.items()})
    if base.fleet != file.fleet:
        raise OperationError(f"{name}: says fleet {file.fleet}, its metadata is of {base.fleet}; ask for it again")
    files = {file_name: _metadata(name, file_name, text) for file_name, text in file.files.items()}
    proposal = Proposal(file.fleet, file.made, file.reason, base, files, Holders(keys=file.holders))
    _check_versions(name, proposal)
    _check_signatures(name, proposal)
    return proposal


def _metadata(proposal: str, name: str, text: str) -> Metadata[Any]:
    kinds: dict[str, type[Any]] = {"root": Root, "targets": Targets, "snapshot": Snapshot}
    role = role_of(name)
    kind = kinds.get(role, Targets if is_releases(role) else None)
    try:
        metadata = Metadata[Any].from_bytes(text.encode())
        json.loads(text)
    except (DeserializationError, ValueError, RecursionError) as error:
        raise OperationError(f"{proposal}: {name} is not TUF metadata; ask for the file again") from error
    if kind is None or not isinstance(metadata.signed, kind):
        raise OperationError(f"{proposal}: {name} is of another kind than its name says; ask for the file again")
    return metadata


def _check_versions(name: str, proposal: Proposal) -> None:
    before = proposal.before()
    for file, metadata in proposal.files.items():
        role = role_of(file)
        expected = (before.version(role) or 0) + 1
        if file != f"{expected}.{role}.json" or metadata.signed.version != expected:
            raise OperationError(f"{name}: {file}: expected version {expected} of {role}; ask for the file again")
    after = proposal.after()
    roles = list(after.roles())
    named = {f"{role}.json": after.version(role) for role in roles if role == Targets.type or is_releases(role)}
    if {file: meta.version for file, meta in after.snapshot.meta.items()} != named:
        raise OperationError(f"{name}: its snapshot does not name its files; ask for the file again")
    for role in roles:
        keys = after.keys(role)
        publics = {str(key.keyval.get("public")) for key in keys.keys.values()}
        if keys.threshold > len(publics):
            raise OperationError(f"{name}: role {role} could never be signed; refuse it")


def _check_signatures(name: str, proposal: Proposal) -> None:
    wanted = proposal.demands()
    for file, metadata in proposal.files.items():
        keys = {keyid: key for demand in wanted if demand.file == file for keyid, key in demand.keys.keys.items()}
        for keyid, signature in metadata.signatures.items():
            if keyid not in keys:
                raise NotAllowedError(f"{name}: {file} is signed by key {keyid[:12]}, which has no say there")
            verify_signature(f"{name}: {file}", keys[keyid], metadata, signature)


def to_bytes(proposal: Proposal) -> bytes:
    """The file's content."""
    file = _File(
        fleet=proposal.fleet,
        made=proposal.made,
        reason=proposal.reason,
        before={name: data.decode() for name, data in newest_files(proposal.base.files).items()},
        files={name: data.decode() for name, data in proposal.signed_files().items()},
        holders=proposal.holders.keys,
    )
    return file.model_dump_json(indent=1).encode() + b"\n"


def load(path: Path) -> Proposal:
    """Read a proposal from its file; raises as ``read_proposal``, and NotFoundError."""
    try:
        with path.open("rb") as source:
            raw = source.read(MAX_PROPOSAL_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such proposal; make one with 'flagship trust propose'") from error
    except OSError as error:
        raise OperationError(f"{path}: cannot be read: {error.strerror or error}") from error
    return read_proposal(raw, str(path))


def save(path: Path, proposal: Proposal, *, new: bool) -> None:
    """Write a proposal, whole or not at all.

    Args:
        new: There must be nothing at its place.

    Raises:
        ConflictError: There is something.
        OperationError: It cannot be written.
    """
    if new and path.exists():
        raise ConflictError(f"{path}: is there already; remove it or name another with -o")
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("wb") as out:
            out.write(to_bytes(proposal))
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OperationError(f"{path}: cannot be written: {error.strerror or error}") from error
