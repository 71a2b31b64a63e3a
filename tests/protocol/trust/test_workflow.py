"""The TUF client workflow against metadata made by python-tuf itself, honest and hostile."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import MetaFile

from protocol.envelopes import decode, encode, open_envelope, sign
from protocol.errors import EnvelopeError, ErrorCode, TrustError
from protocol.reports import Presence
from protocol.trust.workflow import MAX_ROOT_ROTATIONS, TrustStore
from tests.protocol.trust.repository import DIRECTOR, FLEET, NOW, PRODUCT, RELEASES, Repository

PATH = f"{PRODUCT}/1.1.0/manifest"


@pytest.fixture
def repository() -> Repository:
    """A repository that lists one release."""
    made = Repository()
    made.add_release()
    return made


@pytest.fixture
def store(tmp_path: Path, repository: Repository) -> TrustStore:
    """A device's store on its first day."""
    return TrustStore(tmp_path, repository.root_bytes())


def refused(store: TrustStore, files: dict[str, bytes], days: float = 0) -> ErrorCode:
    """The code by which a refresh, and the look at the releases, is refused."""
    with pytest.raises(TrustError) as caught:
        store.refresh(files, NOW + timedelta(days=days), products=(PRODUCT,))
    return caught.value.code


def test_a_listed_release_is_found_with_what_was_signed(store: TrustStore, repository: Repository) -> None:
    """After a refresh a release's length, hash and custom part are what the offline keys signed."""
    trusted = store.refresh(repository.files(), NOW)
    target = trusted.release(PATH)
    assert target is not None
    assert target.length == len("1.1.0")
    assert target.info.hardware == ["rev-a"]
    assert trusted.snapshot_expires == NOW + timedelta(days=30)
    assert trusted.timestamp_expires == NOW + timedelta(days=7)


def test_releases_that_no_device_may_skip_are_found(store: TrustStore, repository: Repository) -> None:
    """Those that are marked, also one whose other fields are of a newer format; none of an unlisted product."""
    for version in ("1.2.0", "1.3.0"):
        repository.add_release(version)
        custom(repository, version)["must_pass_through"] = True
    custom(repository, "1.3.0").update(v=2, profile="small", pieces="elsewhere")
    trusted = store.refresh(repository.files(), NOW)
    assert [one.version for one in trusted.must_pass_through(PRODUCT)] == ["1.2.0", "1.3.0"]
    assert trusted.must_pass_through(PRODUCT) is trusted.must_pass_through(PRODUCT), "read once for each state"
    assert trusted.must_pass_through("camera") == ()
    with pytest.raises(TrustError):
        trusted.release(f"{PRODUCT}/1.3.0/manifest")
    del repository.releases.targets[f"{PRODUCT}/1.2.0/manifest"]
    repository.bump()
    trusted = store.refresh(repository.files(), NOW)
    assert [one.version for one in trusted.must_pass_through(PRODUCT)] == ["1.3.0"], "what is withdrawn may be skipped"


def test_what_may_not_be_skipped_must_be_understood(store: TrustStore, repository: Repository) -> None:
    """Or nobody could tell what skips it."""
    custom(repository, "1.1.0").update(must_pass_through=True, version=["1.1.0"])
    with pytest.raises(TrustError, match=PATH) as caught:
        store.refresh(repository.files(), NOW).must_pass_through(PRODUCT)
    assert caught.value.code is ErrorCode.FORMAT


def custom(repository: Repository, version: str) -> dict[str, Any]:
    """What is judged of a listed release; may be changed."""
    found: dict[str, Any] = repository.releases.targets[f"{PRODUCT}/{version}/manifest"].unrecognized_fields["custom"]
    return found


def test_roles_are_reported_by_name_with_their_versions(store: TrustStore, repository: Repository) -> None:
    """Floors get every verified role by its name, a product's releases included."""
    repository.bump()
    roles = store.refresh(repository.files(), NOW, products=(PRODUCT,)).roles
    assert {name: role.version for name, role in roles.items()} == {
        "root": 1,
        "timestamp": 2,
        "snapshot": 2,
        "targets": 2,
        RELEASES: 2,
    }
    assert roles["root"].keyset == ""
    assert roles["targets"].keyset != roles["snapshot"].keyset


@pytest.mark.parametrize("path", ["gateway/9.9.9/manifest", "other/1.0.0/manifest", "gateway/manifest"])
def test_a_release_that_is_not_listed_does_not_exist(store: TrustStore, repository: Repository, path: str) -> None:
    """What the offline keys do not list is None: nobody signed it."""
    assert store.refresh(repository.files(), NOW).release(path) is None


def test_a_withdrawn_release_is_gone(store: TrustStore, repository: Repository) -> None:
    """A release that newer metadata no longer lists is not found any more."""
    store.refresh(repository.files(), NOW)
    del repository.releases.targets[PATH]
    repository.bump()
    assert store.refresh(repository.files(), NOW).release(PATH) is None


def test_a_release_signed_by_another_key_is_refused(store: TrustStore, repository: Repository) -> None:
    """The delegated role must be signed by the key that the targets role names."""
    repository.signers[RELEASES] = CryptoSigner.generate_ed25519()
    assert refused(store, repository.files()) is ErrorCode.SIGNATURE


def test_an_unsigned_release_is_refused(store: TrustStore, repository: Repository) -> None:
    """Metadata without any signature is refused as such."""
    files = repository.files()
    files[f"1.{RELEASES}.json"] = repository.sign(repository.releases)
    assert refused(store, files) is ErrorCode.SIGNATURE


def test_a_changed_release_is_refused(store: TrustStore, repository: Repository) -> None:
    """One changed figure under a true signature is refused."""
    files = repository.files()
    name = f"1.{RELEASES}.json"
    files[name] = files[name].replace(b'"counter":0', b'"counter":9')
    assert refused(store, files) is ErrorCode.SIGNATURE


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_lower_version_is_a_rollback(store: TrustStore, repository: Repository, role: str) -> None:
    """Older metadata under the same keys is refused, whichever role falls."""
    repository.bump()
    store.refresh(repository.files(), NOW)
    getattr(repository, role).version -= 1
    if role != "timestamp":
        repository.timestamp.version += 1
    if role == "targets":
        repository.snapshot.version += 1
    assert refused(store, repository.files()) is ErrorCode.ROLLBACK_METADATA


def test_a_replayed_older_set_leaves_the_newest_in_place(store: TrustStore, repository: Repository) -> None:
    """A broker that plays an old day changes nothing of what was verified."""
    old = repository.files()
    repository.add_release("1.2.0")
    repository.bump()
    store.refresh(repository.files(), NOW, products=(PRODUCT,))
    assert refused(store, old) is ErrorCode.ROLLBACK_METADATA
    assert store.refresh({}, NOW).release(f"{PRODUCT}/1.2.0/manifest") is not None


def test_an_expired_timestamp_is_a_freeze(store: TrustStore, repository: Repository) -> None:
    """When nobody renews the timestamp, freshness ends, by the given time and not by the machine's clock."""
    files = repository.files()
    store.refresh(files, NOW + timedelta(days=6.9))
    assert refused(store, files, days=7.1) is ErrorCode.FREEZE


def test_a_frozen_repository_thaws_with_a_new_timestamp(store: TrustStore, repository: Repository) -> None:
    """After a freeze a newer timestamp alone is enough: the rest is stored."""
    files = repository.files()
    store.refresh(files, NOW, products=(PRODUCT,))
    assert refused(store, {}, days=8) is ErrorCode.FREEZE
    repository.timestamp.version += 1
    repository.timestamp.expires = NOW + timedelta(days=15)
    repository.files()
    fresh = {"timestamp.json": repository.sign(repository.timestamp, "timestamp")}
    assert store.refresh(fresh, NOW + timedelta(days=8)).release(PATH) is not None


@pytest.mark.parametrize("role", ["root", "snapshot", "targets"])
def test_other_expired_metadata_is_refused(store: TrustStore, repository: Repository, role: str) -> None:
    """Each role's expiry ends its word."""
    getattr(repository, role).expires = NOW - timedelta(days=1)
    if role == "root":
        store = TrustStore(store._directory, repository.root_bytes())
    assert refused(store, repository.files()) is ErrorCode.FREEZE


def test_metadata_under_another_root_is_refused(store: TrustStore) -> None:
    """Another fleet's repository, whole and well signed, means nothing here."""
    other = Repository()
    other.add_release()
    assert refused(store, other.files()) is ErrorCode.SIGNATURE


def test_a_root_is_followed_only_when_the_former_one_signed_it(store: TrustStore, repository: Repository) -> None:
    """A new root needs the old root's keys as well as its own."""
    store.refresh(repository.files(), NOW)
    repository.root.version = 2
    former = repository.signers["root"]
    repository.signers["root"] = CryptoSigner.generate_ed25519()
    repository.root.revoke_key(former.public_key.keyid, "root")
    repository.root.add_key(repository.signers["root"].public_key, "root")
    assert refused(store, repository.files()) is ErrorCode.SIGNATURE

    repository.signers["former"] = former
    files = {**repository.files(), "2.root.json": repository.sign(repository.root, "root", "former")}
    assert store.refresh(files, NOW).roles["root"].version == 2


def test_a_mixed_set_is_refused(store: TrustStore, repository: Repository) -> None:
    """A snapshot that is not the one whose hash the timestamp names is refused."""
    files = repository.files()
    repository.timestamp.snapshot_meta = MetaFile.from_data(1, b"another snapshot", ["sha256"])
    files["timestamp.json"] = repository.sign(repository.timestamp, "timestamp")
    assert refused(store, files) in {ErrorCode.MIX, ErrorCode.OVERSIZE}


@pytest.mark.parametrize("name", ["timestamp.json", "1.snapshot.json", "1.targets.json", f"1.{RELEASES}.json"])
def test_what_is_withheld_is_named(store: TrustStore, repository: Repository, name: str) -> None:
    """A file that the metadata names and nobody delivers is withheld, not absent."""
    files = repository.files()
    del files[name]
    assert refused(store, files) is ErrorCode.WITHHELD


@pytest.mark.parametrize("name", ["timestamp.json", "1.snapshot.json", "1.targets.json"])
@pytest.mark.parametrize("junk", [b"{}", b"[]", b"\xff\xfe", b"[" * 1500], ids=["object", "array", "bytes", "deep"])
def test_junk_is_refused_as_metadata(store: TrustStore, repository: Repository, name: str, junk: bytes) -> None:
    """What is not metadata is refused with a code, never with another error."""
    assert refused(store, {**repository.files(), name: junk}) in {ErrorCode.METADATA, ErrorCode.MIX}


def test_oversized_metadata_is_not_parsed(store: TrustStore, repository: Repository) -> None:
    """A timestamp beyond its cap is refused by its length."""
    files = {**repository.files(), "timestamp.json": b" " * 5_000}
    assert refused(store, files) is ErrorCode.OVERSIZE


def test_what_was_verified_survives_a_new_start_without_the_topics(
    store: TrustStore, repository: Repository, tmp_path: Path
) -> None:
    """A device that starts offline verifies again from what it stored."""
    store.refresh(repository.files(), NOW, products=(PRODUCT,))
    again = TrustStore(tmp_path, repository.root_bytes())
    assert again.refresh({}, NOW + timedelta(days=1)).release(PATH) is not None


def test_a_damaged_store_is_like_none(store: TrustStore, repository: Repository, tmp_path: Path) -> None:
    """A lost cache costs a download and nothing else."""
    store.refresh(repository.files(), NOW)
    (tmp_path / "verified.json").write_bytes(b"\0garbage")
    assert store.refresh(repository.files(), NOW).release(PATH) is not None


def test_the_director_speaks_for_its_fleet_only(store: TrustStore, repository: Repository) -> None:
    """The delegated director key verifies directives of its fleet; other keys and other fleets do not."""
    trusted = store.refresh(repository.files(), NOW)
    message = Presence(session=1, online=True)
    raw = sign(encode(message), "application/x", repository.signers[DIRECTOR])
    opened, payload = open_envelope(raw, 4096, "application/x", trusted.verify_director(FLEET), Presence)
    assert opened == message == decode(payload, Presence)
    for signer, fleet in ((repository.signers[RELEASES], FLEET), (repository.signers[DIRECTOR], "south")):
        forged = sign(encode(message), "application/x", signer)
        with pytest.raises(EnvelopeError) as caught:
            open_envelope(forged, 4096, "application/x", trusted.verify_director(fleet), Presence)
        assert caught.value.code is ErrorCode.SIGNATURE


def test_the_directors_keyset_changes_with_its_keys(store: TrustStore, repository: Repository) -> None:
    """Order floors are bound to the director's keys: other keys, another set."""
    before = store.refresh(repository.files(), NOW).director_keyset(FLEET)
    repository.targets.add_key(CryptoSigner.generate_ed25519().public_key, DIRECTOR)
    repository.bump()
    trusted = store.refresh(repository.files(), NOW)
    assert trusted.director_keyset(FLEET) not in {"", before}
    assert trusted.director_keyset("south") == ""


def test_a_release_with_an_unknown_profile_is_not_understood(store: TrustStore, repository: Repository) -> None:
    """A custom part that this device cannot judge is refused, naming the field."""
    repository.releases.targets[PATH].unrecognized_fields["custom"]["profile"] = "small"
    trusted = store.refresh(repository.files(), NOW)
    with pytest.raises(TrustError, match="profile") as caught:
        trusted.release(PATH)
    assert caught.value.code is ErrorCode.FORMAT


def test_the_stored_set_holds_only_what_is_current(store: TrustStore, repository: Repository, tmp_path: Path) -> None:
    """What newer metadata replaced is forgotten, so the store does not grow."""
    store.refresh(repository.files(), NOW, products=(PRODUCT,))
    repository.bump()
    store.refresh(repository.files(), NOW, products=(PRODUCT,))
    assert set(json.loads((tmp_path / "verified.json").read_text())) == set(repository.files())


@pytest.mark.parametrize("blocked", ["tuf", "verified.json.new"])
def test_a_disk_that_refuses_has_a_code(tmp_path: Path, repository: Repository, blocked: str) -> None:
    """Where the store cannot be written it says E_SPACE, like anything else that is refused; nobody crashes."""
    (tmp_path / "trust").mkdir()
    place = tmp_path / "trust" / blocked
    if blocked == "tuf":
        place.write_bytes(b"in the way")
    else:
        place.mkdir()
    store = TrustStore(tmp_path / "trust", repository.root_bytes())
    assert refused(store, repository.files()) is ErrorCode.SPACE


def rotate_root(repository: Repository, count: int) -> dict[str, bytes]:
    """``count`` root rotations: each has one new key, and is signed by the old one and the new one."""
    files = {"1.root.json": repository.root_bytes()}
    for _ in range(count):
        old, new = repository.signers["root"], CryptoSigner.generate_ed25519()
        repository.root.revoke_key(old.public_key.keyid, "root")
        repository.root.add_key(new.public_key, "root")
        repository.root.version += 1
        repository.signers |= {"old root": old, "root": new}
        files[f"{repository.root.version}.root.json"] = repository.sign(repository.root, "old root", "root")
    return files


def test_a_device_that_missed_forty_five_root_rotations_catches_up_at_once(
    store: TrustStore, repository: Repository
) -> None:
    """K6: every root is retained, one that is withheld holds a device back until it comes."""
    files = rotate_root(repository, 45)
    files = {**repository.files(), **files}
    withheld = {name: data for name, data in files.items() if name != "30.root.json"}
    assert store.refresh(withheld, NOW).roles["root"].version == 29
    assert store.refresh(files, NOW).roles["root"].version == 46


def test_the_chain_of_roots_that_a_device_walks_is_bounded(store: TrustStore, repository: Repository) -> None:
    """K6: MAX_ROOT_ROTATIONS from the root it was enrolled with; what a later root alone says is not believed."""
    timestamp = CryptoSigner.generate_ed25519()
    files = rotate_root(repository, MAX_ROOT_ROTATIONS)
    assert store.refresh({**repository.files(), **files}, NOW).roles["root"].version == MAX_ROOT_ROTATIONS + 1
    repository.root.revoke_key(repository.signers["timestamp"].public_key.keyid, "timestamp")
    repository.root.add_key(timestamp.public_key, "timestamp")
    repository.signers["timestamp"] = timestamp
    repository.root.version += 1
    with pytest.raises(TrustError) as caught:
        store.refresh({**repository.files(), **files}, NOW)
    assert caught.value.code is ErrorCode.SIGNATURE
