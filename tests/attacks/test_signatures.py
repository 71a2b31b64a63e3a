"""A: software or orders that nobody with the right keys signed."""

import pytest
from securesystemslib.signer import CryptoSigner

from protocol.errors import ErrorCode
from protocol.topics import Kind
from tests.attacks.arena import Arena
from tests.attacks.catalogue import attack
from tests.integration.small_fleet import PRODUCT

pytestmark = pytest.mark.asyncio(loop_scope="module")
STRANGER = CryptoSigner.generate_ed25519()


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


@attack("A6", "E_SIGNATURE")
async def test_a6_a_key_of_another_role(ground: Arena) -> None:
    """The timestamp's key, which is listed and online, signs an announcement and an offer."""
    async with ground.victim() as victim:
        timestamp = ground.online("timestamp")
        await ground.put(Kind.ANNOUNCE, ground.announcement("r-a6", ground.ref(), timestamp), rollout="r-a6")
        await ground.put(
            Kind.OFFER, ground.offer("r-a6", victim, ground.ref(), timestamp), device=victim.name, rollout="r-a6"
        )
        await ground.fails(victim, ErrorCode.SIGNATURE)
        assert victim.agent.runner.update is None
