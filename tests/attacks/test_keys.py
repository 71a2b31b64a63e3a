"""K: keys that were revoked or rotated."""

import pytest

from protocol.errors import ErrorCode
from protocol.topics import Kind
from tests.attacks.arena import Arena
from tests.attacks.books import DIRECTOR, RELEASES, Books, by
from tests.attacks.catalogue import attack
from tests.integration.small_fleet import until

pytestmark = pytest.mark.asyncio(loop_scope="module")
MISSED = 40


@attack("K1", "E_SIGNATURE")
async def test_k1_a_revoked_director(ground: Arena) -> None:
    """The owner replaces the stolen key of the director; the thief goes on giving orders."""
    async with ground.victim() as victim:
        books = Books(ground)
        books.bump()
        books.rekey_delegation(DIRECTOR)
        await books.publish()
        await victim.believing("targets", books.targets.version)
        await ground.order(victim, "r-k1", ground.ref())
        await ground.fails(victim, ErrorCode.SIGNATURE)
        assert victim.agent.runner.update is None


@attack("K2", "E_SIGNATURE")
async def test_k2_a_revoked_release_key(ground: Arena) -> None:
    """The owner replaces the stolen release key; the thief lists a release, and has the keys above it too."""
    async with ground.victim() as victim:
        books, stolen = Books(ground), ground.offline(RELEASES)
        books.bump()
        books.rekey_delegation(RELEASES)
        await books.publish()
        await victim.believing(RELEASES, books.releases.version)
        for role in (books.releases, books.snapshot, books.timestamp):
            role.version += 1
        await books.publish({f"{books.releases.version}.{RELEASES}.json": by(books.releases, stolen)})
        await ground.fails(victim, ErrorCode.SIGNATURE)
        assert victim.believes[RELEASES] == books.releases.version - 1


@attack("K3", "E_SIGNATURE")
async def test_k3_a_root_that_the_former_one_did_not_sign(ground: Arena) -> None:
    """A new root names new keys for everything, and only those have signed it."""
    async with ground.victim() as victim:
        books = Books(ground)
        books.bump()
        books.rekey_root("root", "timestamp", "snapshot", "targets")
        await books.publish({"2.root.json": by(books.root, books.signers["root"])})
        await ground.fails(victim, ErrorCode.SIGNATURE)
        assert victim.believes["root"] == 1


@attack("K4", "accepted")
async def test_k4_a_root_that_both_signed(ground: Arena) -> None:
    """The owner replaces every top-level key; the new root is signed by its own key and by the one before."""
    async with ground.victim() as victim:
        books = Books(ground)
        books.bump()
        books.rekey_root("root", "timestamp", "snapshot", "targets")
        await books.publish()
        await victim.believing("root", 2)
        assert not victim.agent._verifier.stale
        assert victim.believes["targets"] == books.targets.version


@attack("K5", "E_ROLLBACK_METADATA")
@pytest.mark.parametrize("version", [1, 3], ids=["unchanged", "skipped"])
async def test_k5_a_root_out_of_its_turn(ground: Arena, version: int) -> None:
    """Under the name of the next root comes one, signed by all it needs, whose version does not rise or skips one."""
    async with ground.victim() as victim:
        books = Books(ground)
        books.bump()
        books.rekey_root("root")
        books.root.version = version
        await books.publish({"2.root.json": books.root_bytes()})
        await ground.fails(victim, ErrorCode.ROLLBACK_METADATA)
        assert victim.believes["root"] == 1


@attack("K6", "accepted; up to 256 at once")
async def test_k6_many_rotations_missed(ground: Arena) -> None:
    """A device was off for years: root was replaced 40 times meanwhile, and the bundle has only the newest."""
    async with ground.victim() as victim:
        books = Books(ground)
        books.bump()
        async with victim.switched_off():
            for _ in range(MISSED):
                books.rekey_root("root", "timestamp", "snapshot", "targets")
                number = books.root.version
                await ground.put(Kind.TRUST_ROOT, books.root_bytes(), n=str(number))
            await books.publish()
        await victim.believing("root", 1 + MISSED)
        await until(lambda: not victim.agent._verifier.stale, "it believes what the newest root vouches for")
