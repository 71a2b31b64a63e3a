"""What a ceremony may change, and what follows from it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner, Key, SSlibKey
from tuf.api.metadata import Metadata

from orchestrator.errors import ConflictError, NotFoundError, OperationError, UsageError
from orchestrator.publisher.changes import MAX_KEYS, Change, apply
from orchestrator.publisher.signing import Repository, read_repository
from orchestrator.publisher.trust_roles import contents
from protocol.identifiers import ReleaseName
from tests.orchestrator.publisher.workshop import NOW, Publisher

DIRECTOR, RELEASES = "director-harbour", "releases-gateway"


def new_key() -> Key:
    """A public key of nobody."""
    return CryptoSigner.generate_ed25519().public_key


@pytest.fixture
def repository(publisher: Publisher) -> Repository:
    """As the first ceremony leaves it: one key for each role."""
    return read_repository(publisher.workspace.load_metadata())


def first_key(repository: Repository, role: str) -> str:
    """The id of a role's only key."""
    (keyid,) = contents(repository).keys(role).keys
    return keyid


ROLE_FILES = [
    ("root", {"2.root.json"}),
    ("timestamp", {"2.root.json"}),
    ("snapshot", {"2.root.json"}),
    ("targets", {"2.root.json"}),
    (DIRECTOR, {"2.targets.json", "2.snapshot.json"}),
    (RELEASES, {"2.targets.json", "2.snapshot.json"}),
    ("codesign-app", {"2.targets.json", "2.snapshot.json"}),
]


@pytest.mark.parametrize(("role", "files"), ROLE_FILES, ids=[role for role, _ in ROLE_FILES])
def test_a_key_that_is_added_changes_the_metadata_that_lists_it(
    repository: Repository, role: str, files: set[str]
) -> None:
    """And nothing that the former keys signed; every new file is unsigned, one version up."""
    changed = apply(repository, Change(add=((role, new_key()),)), NOW)
    assert set(changed) == files
    assert not any(metadata.signatures for metadata in changed.values())


REPLACED = [
    ("root", {"2.root.json"}),
    ("timestamp", {"2.root.json"}),
    ("snapshot", {"2.root.json", "2.snapshot.json"}),
    ("targets", {"2.root.json", "2.targets.json", "2.snapshot.json"}),
    (DIRECTOR, {"2.targets.json", "2.snapshot.json"}),
    (RELEASES, {"2.targets.json", f"2.{RELEASES}.json", "2.snapshot.json"}),
]


@pytest.mark.parametrize(("role", "files"), REPLACED, ids=[role for role, _ in REPLACED])
def test_what_only_a_removed_key_signed_is_signed_anew(repository: Repository, role: str, files: set[str]) -> None:
    """A role's file follows its keys, and the snapshot follows the file."""
    change = Change(add=((role, new_key()),), remove=((role, first_key(repository, role)),))
    assert set(apply(repository, change, NOW)) == files


def test_a_new_product_gets_a_role_and_an_empty_list(repository: Repository) -> None:
    """Version 1, under its own paths; the snapshot names it."""
    changed = apply(repository, Change(products=("sensor",), add=(("releases-sensor", new_key()),)), NOW)
    assert set(changed) == {"2.targets.json", "1.releases-sensor.json", "2.snapshot.json"}
    assert changed["2.targets.json"].signed.delegations.roles["releases-sensor"].paths == ["sensor/*/*"]
    assert changed["2.snapshot.json"].signed.meta["releases-sensor.json"].version == 1


def test_a_renewal_has_the_usual_life_or_the_one_that_is_named(repository: Repository) -> None:
    """Targets 180 days; a releases role 10 as asked; the snapshot follows with 90."""
    change = Change(renew={"targets": None, RELEASES: timedelta(days=10)})
    changed = apply(repository, change, NOW + timedelta(days=1))
    days = {name.split(".")[1]: (m.signed.expires - NOW).days - 1 for name, m in changed.items()}
    assert days == {"targets": 180, RELEASES: 10, "snapshot": 90}


def test_what_has_run_out_is_renewed_in_the_same_proposal_or_nothing_is(repository: Repository) -> None:
    """An expired root carries nothing; renewing it is what a ceremony is for."""
    late = NOW + timedelta(days=400)
    with pytest.raises(OperationError, match=r"role root: expired 2027-11-24.*renew it.*--renew root"):
        apply(repository, Change(renew={"targets": None}), late)
    assert set(apply(repository, Change(renew={"root": None, "targets": None}), late)) == {
        "2.root.json",
        "2.targets.json",
        "2.snapshot.json",
    }


def _same_key_other_id(repository: Repository) -> Change:
    (key,) = contents(repository).keys("root").keys.values()
    assert isinstance(key, SSlibKey)
    return Change(add=(("root", SSlibKey("ab" * 32, key.keytype, key.scheme, key.keyval)),))


Make = Callable[[Repository], Change]
BAD: dict[str, tuple[type[OperationError], str, Make]] = {
    "nothing": (UsageError, "found nothing", lambda r: Change()),
    "unknown role": (NotFoundError, "role boot: expected one of", lambda r: Change(add=(("boot", new_key()),))),
    "same key": (
        ConflictError,
        "has key .* already",
        lambda r: Change(add=(("root", next(iter(contents(r).keys("root").keys.values()))),)),
    ),
    "same key under another id": (ConflictError, "one key counts once", _same_key_other_id),
    "last key": (
        UsageError,
        "nobody could sign it",
        lambda r: Change(remove=(("root", first_key(r, "root")),)),
    ),
    "unknown key": (NotFoundError, "has no key abababababab", lambda r: Change(remove=(("root", "ab" * 32),))),
    "threshold above the keys": (
        UsageError,
        "threshold 2 with 1 keys can never be met",
        lambda r: Change(thresholds={"targets": 2}),
    ),
    "threshold of nothing": (UsageError, "at least 1, found 0", lambda r: Change(thresholds={"root": 0})),
    "two directors must sign": (
        UsageError,
        "signs with one key",
        lambda r: Change(add=((DIRECTOR, new_key()),), thresholds={DIRECTOR: 2}),
    ),
    "online key signs root": (
        UsageError,
        "must sign nothing else",
        lambda r: Change(add=(("root", next(iter(contents(r).keys(DIRECTOR).keys.values()))),)),
    ),
    "too many keys": (
        UsageError,
        f"at most {MAX_KEYS} keys",
        lambda r: Change(add=tuple(("root", new_key()) for _ in range(MAX_KEYS))),
    ),
    "timestamp": (UsageError, "the orchestrator renews it", lambda r: Change(renew={"timestamp": None})),
    "carrier": (UsageError, "renew targets", lambda r: Change(renew={DIRECTOR: None})),
    "product again": (ConflictError, "has a role already", lambda r: Change(products=("gateway",))),
    "product without keys": (UsageError, "nobody could sign it", lambda r: Change(products=("sensor",))),
    "product with a bad name": (UsageError, "name of a role", lambda r: Change(products=("a/b",))),
    "unlisted release": (NotFoundError, "not listed", lambda r: Change(unlist=(ReleaseName("gateway", "9.9.9"),))),
    "a life of nothing": (UsageError, "1 to 3650 days", lambda r: Change(renew={"root": timedelta(0)})),
}


@pytest.mark.parametrize("name", BAD)
def test_what_makes_no_sense_is_refused(repository: Repository, name: str) -> None:
    """One sentence; the working copy is not touched."""
    error, says, make = BAD[name]
    before = dict(repository.files)
    with pytest.raises(error, match=says) as refused:
        apply(repository, make(repository), NOW)
    assert "\n" not in str(refused.value)
    assert repository.files == before
    assert repository.root.signed.version == 1


def test_roots_stop_where_devices_stop_following(repository: Repository) -> None:
    """A device walks a bounded chain from the root that it was enrolled with."""
    root: Metadata[Any] = Metadata.from_bytes(repository.root.to_bytes())
    root.signed.version = 256
    with pytest.raises(OperationError, match="version 256 is the last"):
        apply(replace(repository, root=root), Change(renew={"root": None}), NOW)
