"""Every director key that the offline keys have listed: what was signed years ago is still checked. Blocking.

Roots follow one another from the oldest that is there, or from one that the caller brings; a targets file counts when
one of these roots says so. Expiry is not looked at: it says whom to obey today, not who signed then.
"""

from collections.abc import Mapping
from pathlib import Path

from securesystemslib.signer import Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets
from tuf.api.serialization import DeserializationError

from orchestrator.errors import OperationError
from orchestrator.releases.package_trust import read_home
from protocol.trust.trusted import director_role

_ROOT, _TARGETS = ".root.json", ".targets.json"


def listed_directors(trust: Path, fleet: str, pinned: Path | None = None) -> dict[str, Key]:
    """Keys by id.

    Args:
        pinned: A root that was kept elsewhere, to begin from; without it the folder is believed.

    Raises:
        OperationError: The folder is damaged, or does not follow from the pinned root.
    """
    files = read_home(trust)
    roots = _roots(files, trust, pinned)
    found: dict[str, Key] = {}
    for name in sorted(files):
        if name.endswith(_TARGETS):
            found |= _directors(files[name], roots, director_role(fleet))
    if not found:
        raise OperationError(f"{trust}: no targets signed by its root names a director of fleet {fleet}; restore it")
    return found


def _roots(files: Mapping[str, bytes], trust: Path, pinned: Path | None) -> list[Root]:
    try:
        if pinned is not None:
            first = Metadata[Root].from_bytes(pinned.read_bytes())
        else:
            oldest = min((name for name in files if name.endswith(_ROOT)), key=_number)
            first = Metadata[Root].from_bytes(files[oldest])
        first.signed.verify_delegate(Root.type, first.signed_bytes, first.signatures)
        chain = [first.signed]
        while following := files.get(f"{chain[-1].version + 1}{_ROOT}"):
            root = Metadata[Root].from_bytes(following)
            chain[-1].verify_delegate(Root.type, root.signed_bytes, root.signatures)
            root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
            if root.signed.version != chain[-1].version + 1:
                raise OperationError(f"{trust}: root {chain[-1].version + 1} says it is {root.signed.version}")
            chain.append(root.signed)
    except OSError as error:
        raise OperationError(f"{pinned}: cannot be read: {error.strerror or error}") from error
    except (DeserializationError, RepositoryError, ValueError, AttributeError) as error:
        raise OperationError(f"{trust}: its roots do not follow from one another: {error}; restore it") from error
    return chain


def _directors(data: bytes, roots: list[Root], role: str) -> dict[str, Key]:
    """Of one targets file; none where no root vouches for it."""
    try:
        targets = Metadata[Targets].from_bytes(data)
        if not any(_vouches(root, targets) for root in roots):
            return {}
        delegations = targets.signed.delegations
        roles = (delegations.roles if delegations else None) or {}
        if delegations is None or role not in roles:
            return {}
        return {keyid: delegations.keys[keyid] for keyid in roles[role].keyids}
    except (DeserializationError, AttributeError, KeyError):
        return {}


def _vouches(root: Root, targets: Metadata[Targets]) -> bool:
    try:
        root.verify_delegate(Targets.type, targets.signed_bytes, targets.signatures)
    except RepositoryError:
        return False
    return True


def _number(name: str) -> int:
    number = name.partition(".")[0]
    return int(number) if number.isdecimal() else 2**31
