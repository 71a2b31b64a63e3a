"""The words of ``flagship trust propose``: ROLE=VALUE pairs become a change."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from securesystemslib.signer import Key

from orchestrator.errors import UsageError
from orchestrator.publisher.changes import Change
from orchestrator.publisher.holders import Holder, read_public_key
from orchestrator.publisher.signing import read_repository
from orchestrator.publisher.steps import find_key, known_holders
from orchestrator.publisher.trust_roles import contents
from orchestrator.publisher.workspace import Workspace
from protocol.identifiers import ReleaseName, check_id

Words = Sequence[str] | None


def read_change(
    workspace: Workspace, add: Words, remove: Words, threshold: Words, renew: Words, product: Words, unlist: Words
) -> tuple[Change, dict[str, Holder]]:
    """The change, and the holders of the keys that it adds, by key id.

    Raises:
        UsageError: A word is not what it should be.
        NotFoundError: A key file or a key is not there.
    """
    news: dict[str, Holder] = {}
    added: list[tuple[str, Key]] = []
    for role, file in _pairs("--add", add, "PUBLIC_KEY_FILE"):
        found = read_public_key(Path(file))
        news[found.key.keyid] = found.holder
        added.append((role, found.key))
    leaving = _pairs("--remove", remove, "HOLDER")
    keys = contents(read_repository(workspace.load_metadata())) if leaving else None
    holders = known_holders(workspace)
    removed = [(role, find_key(keys, role, text, holders)) for role, text in leaving] if keys else []
    change = Change(
        add=tuple(added),
        remove=tuple(removed),
        thresholds={role: _number(text, f"--threshold {role}") for role, text in _pairs("--threshold", threshold, "N")},
        renew=dict(_renewal(text) for text in renew or ()),
        products=tuple(_id(name) for name in product or ()),
        unlist=tuple(_release(name) for name in unlist or ()),
    )
    return change, news


def read_days(text: str, option: str) -> timedelta:
    """A number of days; raises UsageError."""
    return timedelta(days=_number(text, option))


def _pairs(option: str, texts: Words, value: str) -> list[tuple[str, str]]:
    found = [text.partition("=") for text in texts or ()]
    for role, equals, given in found:
        if not (role and equals and given):
            raise UsageError(f"{option} {role[:80]!r}: expected ROLE={value}")
    return [(role, given) for role, _, given in found]


def _renewal(text: str) -> tuple[str, timedelta | None]:
    role, equals, days = text.partition("=")
    return role, read_days(days, f"--renew {role}") if equals else None


def _number(text: str, option: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5:
        raise UsageError(f"{option} {text[:40]!r}: expected a number")
    return int(text)


def _id(text: str) -> str:
    try:
        return check_id(text, "product")
    except ValueError as error:
        raise UsageError(str(error)) from error


def _release(text: str) -> ReleaseName:
    try:
        return ReleaseName.parse(text)
    except ValueError as error:
        raise UsageError(str(error)) from error
