"""A: software or orders that nobody with the right keys signed."""

import json
from datetime import UTC, datetime

import pytest
from securesystemslib.signer import CryptoSigner, Signature
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, TargetFile, Targets

from protocol.directives import ReleaseRef
from protocol.errors import ErrorCode
from protocol.reports import STATE_TYPE
from protocol.topics import Kind
from tests.attacks.arena import Arena, Victim
from tests.attacks.books import DIRECTOR, RELEASES, Books, by
from tests.attacks.catalogue import attack
from tests.integration.small_fleet import PRODUCT, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
LATER = datetime(2099, 1, 1, tzinfo=UTC)
STRANGER = CryptoSigner.generate_ed25519()
SECOND = CryptoSigner.generate_ed25519()


@attack("A1", "E_SIGNATURE")
async def test_a1_releases_signed_by_unknown_keys(ground: Arena) -> None:
    """A list of releases that keys nobody knows have signed, named by a genuine snapshot and timestamp."""

    def add(signed: object) -> None:
        signed.version += 1  # type: ignore[attr-defined]

    releases = ground.resign(f"releases-{PRODUCT}", add, STRANGER)
    async with ground.victim() as victim:
        await ground.put_trust(ground.follow({f"releases-{PRODUCT}": releases}))
        await ground.fails(victim, ErrorCode.SIGNATURE)
        assert victim.believes[f"releases-{PRODUCT}"] == 3


@attack("A2", "E_SIGNATURE")
async def test_a2_one_of_two_required_keys(ground: Arena) -> None:
    """The owner demands two release keys; a thief who has one of them lists releases."""
    async with ground.victim() as victim:
        books = await _demand_two_keys(ground, victim)
        books.bump()
        await books.publish()
        await ground.fails(victim, ErrorCode.SIGNATURE)
        assert victim.believes[RELEASES] == books.releases.version - 1


@attack("A3", "E_SIGNATURE")
async def test_a3_one_key_counted_twice(ground: Arena) -> None:
    """The same thief signs again with the one key, under the id of the second and under one that he made up."""
    async with ground.victim() as victim:
        books = await _demand_two_keys(ground, victim)
        books.bump()
        metadata = Metadata[Targets].from_bytes(by(books.releases, books.signers[RELEASES]))
        (signature,) = metadata.signatures.values()
        for keyid in (SECOND.public_key.keyid, "6" * 64):
            metadata.signatures[keyid] = Signature(keyid, signature.signature)
        await books.publish({f"{books.releases.version}.{RELEASES}.json": metadata.to_bytes()})
        await ground.fails(victim, ErrorCode.SIGNATURE)
        assert victim.believes[RELEASES] == books.releases.version - 1


@attack("A4", "E_METADATA")
async def test_a4_a_threshold_of_none(ground: Arena) -> None:
    """Targets metadata, signed by its stolen key, by which a list of releases needs no signature at all."""
    async with ground.victim() as victim:
        books = Books(ground)
        books.bump()
        books.delegation(RELEASES).threshold = 0
        await books.publish({f"{books.releases.version}.{RELEASES}.json": by(books.releases)})
        await ground.fails(victim, ErrorCode.METADATA)
        assert victim.believes["targets"] == books.targets.version - 1


@attack("A5", "E_METADATA")
async def test_a5_one_role_served_as_another(ground: Arena) -> None:
    """The bytes of the snapshot, genuine and signed, under the name of the targets role."""
    async with ground.victim() as victim:
        books = Books(ground)
        genuine = ground.metadata()["snapshot"]
        books.targets.version = books.snapshot.version
        books.snapshot.version += 1
        books.timestamp.version += 1
        await books.publish({f"{books.targets.version}.targets.json": genuine})
        await ground.fails(victim, ErrorCode.METADATA)
        assert victim.believes["targets"] == 1


@attack("A6", "E_SIGNATURE")
async def test_a6_a_key_of_another_role(ground: Arena) -> None:
    """The timestamp's key, which is listed and online, signs an announcement and an offer."""
    async with ground.victim() as victim:
        await _order_by(ground, victim, "r-a6", ground.online("timestamp"))
        await ground.fails(victim, ErrorCode.SIGNATURE)
        assert victim.agent.runner.update is None


@attack("A7", "E_TYPE")
async def test_a7_an_order_in_the_envelope_of_a_report(ground: Arena) -> None:
    """The director's signature is genuine, but it was made over the type of a device's report."""
    async with ground.victim() as victim:
        await ground.put(Kind.ANNOUNCE, ground.announcement("r-a7", ground.ref(), envelope=STATE_TYPE), rollout="r-a7")
        await ground.fails(victim, ErrorCode.TYPE)
        assert not victim.agent.runner.announcements


@attack("A8", "E_SIGNATURE")
async def test_a8_a_changed_order(ground: Arena) -> None:
    """One character of a genuine announcement was changed on the way."""
    async with ground.victim() as victim:
        envelope = json.loads(ground.announcement("r-a8", ground.ref()))
        text, middle = envelope["payload"], len(envelope["payload"]) // 2
        envelope["payload"] = text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]
        await ground.put(Kind.ANNOUNCE, json.dumps(envelope).encode(), rollout="r-a8")
        await ground.fails(victim, ErrorCode.SIGNATURE)
        assert not victim.agent.runner.announcements


@attack("A9", "E_SIGNATURE")
async def test_a9_a_spoofed_server(ground: Arena) -> None:
    """Somebody poses as the fleet: root, lists, announcement and offer of valid form, all under keys of his own."""
    async with ground.victim() as victim:
        books = Books(ground)
        books.bump()
        books.rekey_root("root", "targets", "snapshot", "timestamp")
        books.rekey_delegation(RELEASES)
        books.rekey_delegation(DIRECTOR)
        await books.publish({"2.root.json": by(books.root, books.signers["root"])})
        await ground.fails(victim, ErrorCode.SIGNATURE)
        await _order_by(ground, victim, "r-a9", books.signers[DIRECTOR])
        await until(lambda: victim.refused(ErrorCode.SIGNATURE, times=3), "announcement and offer are refused too")
        assert victim.believes["root"] == 1
        assert victim.agent.runner.update is None


@attack("A10", "E_SIGNATURE")
async def test_a10_a_role_with_two_parents(ground: Arena) -> None:
    """Two roles delegate to a third; its key by the first parent lists a release that is looked up by the second."""
    async with ground.victim() as victim:
        books, thief = Books(ground), CryptoSigner.generate_ed25519()
        books.bump()
        ref = ground.ref(path=f"{PRODUCT}/6.6.6/manifest")
        files = {"1.shared.json": by(_list_of(ref, like=books.releases.targets[ground.ref().path]), thief)}
        # The agent looks up PRODUCT/-/- with every refresh, and so loads what the first parent vouches for.
        for name, path, key in (("first", f"{PRODUCT}/-/-", thief), ("second", f"{PRODUCT}/*/*", SECOND)):
            files[f"1.{name}.json"] = by(_parent_of("shared", path, key), SECOND)
            books.delegate(name, path, SECOND)
        books.more = ["shared", "first", "second"]
        await books.publish(files)
        await victim.believing("shared", 1)
        await ground.order(victim, "r-a10", ref)
        await ground.fails(victim, ErrorCode.SIGNATURE)
        assert victim.outcome is ErrorCode.SIGNATURE


def _list_of(ref: ReleaseRef, *, like: TargetFile) -> Targets:
    target = TargetFile(ref.length, {"sha256": ref.sha256}, ref.path)
    target.unrecognized_fields["custom"] = like.custom
    return Targets(expires=LATER, targets={ref.path: target})


def _parent_of(role: str, path: str, key: CryptoSigner) -> Targets:
    delegations = Delegations({}, {role: DelegatedRole(role, [], 1, terminating=False, paths=[path])})
    parent = Targets(expires=LATER, delegations=delegations)
    parent.add_key(key.public_key, role)
    return parent


async def _demand_two_keys(ground: Arena, victim: Victim) -> Books:
    books = Books(ground)
    books.bump()
    books.targets.add_key(SECOND.public_key, RELEASES)
    books.delegation(RELEASES).threshold = 2
    both = by(books.releases, books.signers[RELEASES], SECOND)
    await books.publish({f"{books.releases.version}.{RELEASES}.json": both})
    await victim.believing(RELEASES, books.releases.version)
    return books


async def _order_by(ground: Arena, victim: Victim, rollout: str, signer: CryptoSigner) -> None:
    ref = ground.ref()
    await ground.put(Kind.ANNOUNCE, ground.announcement(rollout, ref, signer), rollout=rollout)
    await ground.put(Kind.OFFER, ground.offer(rollout, victim, ref, signer), device=victim.name, rollout=rollout)
