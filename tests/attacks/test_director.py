"""D: a stolen director. Its signatures are genuine; what it may order is not its to say."""

from typing import Any

import pytest

from protocol.directives import Grant, Heard
from protocol.errors import ErrorCode
from protocol.manifest import Policy
from protocol.states import Phase, State
from protocol.topics import Kind
from tests.attacks.arena import Arena, Victim
from tests.attacks.catalogue import attack
from tests.attacks.forging import list_targets
from tests.integration.small_fleet import PRODUCT, installed, make_package, make_tree, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
HOUR_S = 3600


@attack("D1", "E_NOT_RELEASED")
async def test_d1_an_unreleased_image(ground: Arena) -> None:
    """A stolen director orders an image that the release keys never listed."""
    made_up = ground.ref(path=f"{PRODUCT}/6.6.6/manifest", sha256="6" * 64)
    async with ground.victim() as victim:
        await ground.order(victim, "r-d1", made_up)
        await ground.fails(victim, ErrorCode.NOT_RELEASED)
        assert victim.stands(State.REJECTED)


@attack("D2", "E_MISMATCH")
async def test_d2_other_bytes_under_a_listed_name(ground: Arena) -> None:
    """A stolen director names a listed release and other bytes, another length, or another counter than its signers."""
    changes: list[dict[str, Any]] = [{"sha256": "6" * 64}, {"length": ground.ref().length + 1}, {"counter": 50}]
    async with ground.victim() as victim:
        for attempt, change in enumerate(changes, 1):
            await ground.order(victim, "r-d2", ground.ref(**change), attempt=attempt, key_wrap=ground.wrap(victim))
            refused = victim.agent._refusals.counts
            await until(
                lambda refused=refused, least=attempt: refused[ErrorCode.MISMATCH] >= least,  # type: ignore[misc]
                f"the victim refuses {change}",
            )
            await until(lambda: victim.stands(State.REJECTED), "the order is rejected")
        await ground.fails(victim, ErrorCode.MISMATCH)


@attack("D3", "E_HARDWARE")
async def test_d3_an_image_for_other_hardware(ground: Arena) -> None:
    """A stolen director orders a signed release on a device of a hardware that its signers did not name."""
    async with ground.victim(device={"hardware": "rev-z"}) as victim:
        await ground.order(victim, "r-d3", ground.ref())
        await ground.fails(victim, ErrorCode.HARDWARE)
        assert victim.stands(State.REJECTED)


@attack("D4", "E_SCOPE")
async def test_d4_an_offer_to_another_device(ground: Arena) -> None:
    """Who holds the broker copies one device's genuine offer, and one rollout's announcement, to other topics."""
    async with ground.victim() as bystander, ground.victim() as victim:
        offer = ground.offer("r-d4", bystander, ground.ref())
        await ground.put(Kind.OFFER, offer, device=victim.name, rollout="r-d4")
        await ground.fails(victim, ErrorCode.SCOPE)
        await ground.put(Kind.ANNOUNCE, ground.announcement("r-d4", ground.ref()), rollout="r-d4-other")
        await until(lambda: victim.agent._refusals.counts[ErrorCode.SCOPE] >= 2, "the announcement is refused too")
        assert victim.agent.runner.update is None
        assert "r-d4-other" not in victim.agent.runner.announcements
    await ground.put(Kind.ANNOUNCE, b"", rollout="r-d4-other")


@attack("D5", "E_NOT_RELEASED")
async def test_d5_a_release_withdrawn_before_it_is_installed(ground: Arena) -> None:
    """The release keys withdraw a release that a device has fetched; a stolen director tells it to go on."""
    async with ground.victim() as victim:
        await ground.order(victim, "r-d5", ground.ref())
        await until(lambda: victim.stands(State.WAITING, Phase.INSTALL), "the victim has it and asks")
        await list_targets(ground, victim, lambda listed: listed.pop(f"{PRODUCT}/1.1.0/manifest"))
        await grant(ground, victim, "r-d5")
        await ground.fails(victim, ErrorCode.NOT_RELEASED)
        assert victim.stands(State.FAILED)
        assert not any(victim.home.staging.iterdir()), "what was fetched is gone"


@attack("D6", "E_UNSAFE, deferred")
async def test_d6_an_order_against_the_device_s_own_policy(ground: Arena) -> None:
    """Who holds the orchestrator orders an update now, in use and on an empty battery; the device's owner said no."""
    async with ground.victim(gates={"min_battery_percent": 60}) as victim:
        asked = {"min_battery_percent": 0, "allow_in_use": True}
        await ground.roll_out("r-d6", victim, policy=asked)
        said = await ground.seen(victim, "e_unsafe")
        assert "asks for less than this device demands: min_battery_percent, allow_in_use" in said
        assert not victim.agent.runner.offers, "it is not even offered"
        # A director that offers all the same.
        await ground.put(Kind.OFFER, ground.offer("r-d6", victim, ground.ref()), device=victim.name, rollout="r-d6")
        await until(lambda: victim.stands(State.WAITING, Phase.DOWNLOAD), "the offer waits")
        await until(lambda: _reasons(victim) == {"e_unsafe"}, "the device says why")
        assert not any(victim.home.staging.iterdir())
        assert installed(victim.home) == "1.0.0"
    await ground.fleet.call("post", "/rollouts/r-d6/abort", {})


@attack("D7", "E_UNSAFE, deferred: the least interval of the offline-signed policy")
async def test_d7_a_loop_of_updates(ground: Arena) -> None:
    """Who holds the orchestrator orders one update after the other, those that roll back too, to keep a device busy."""
    for version in ("1.2.0", "1.3.0"):
        tree = make_tree(ground.fleet.place, version, 1000)
        policy = Policy(min_interval_s=HOUR_S)
        await ground.fleet.publish(make_package(ground.fleet.home, tree, version, 5, policy))
    broken = {"health": ["/bin/false"]}
    async with ground.victim() as good, ground.victim(installer=broken) as bad:
        both = {"members": {"selector": f"id in ({good.name},{bad.name})"}, "halt_ratio": 1.0, "success_ratio": 0.1}
        await ground.fleet.roll_out("r-d7-1", "1.2.0", **both)
        await ground.fleet.until_state("r-d7-1", "completed")
        assert (installed(good.home), installed(bad.home)) == ("1.2.0", "1.0.0")
        await ground.fleet.roll_out("r-d7-2", "1.3.0", **both)
        for victim, runs in ((good, "1.2.0"), (bad, "1.0.0")):
            assert f"less than {HOUR_S} s ago" in await ground.seen(victim, "too_soon")
            await ground.put(
                Kind.OFFER, ground.offer("r-d7-2", victim, ground.ref("1.3.0")), device=victim.name, rollout="r-d7-2"
            )
            await until(lambda victim=victim: _reasons(victim) == {"too_soon"}, "the offer waits")  # type: ignore[misc]
            assert installed(victim.home) == runs
    await ground.fleet.call("post", "/rollouts/r-d7-2/abort", {})


@attack("D8", "E_SOFTWARE")
async def test_d8_a_release_past_one_that_must_not_be_skipped(ground: Arena) -> None:
    """A stolen director orders a genuine release past one that, by its signers' word, no device may skip."""
    async with ground.victim() as victim:

        def mark(listed: dict[str, Any]) -> None:
            listed[f"{PRODUCT}/1.0.5/manifest"].unrecognized_fields["custom"]["must_pass_through"] = True

        await list_targets(ground, victim, mark)
        await ground.order(victim, "r-d8", ground.ref())
        await ground.fails(victim, ErrorCode.SOFTWARE)
        assert victim.stands(State.REJECTED)
        assert "no device may skip app 1.0.5, and 1.0.0 runs here" in await ground.seen(victim, "may skip")


async def grant(ground: Arena, victim: Victim, rollout: str) -> None:
    """What a stolen director answers to a device that asks: everything that it asks for."""
    update = victim.agent.runner.update
    assert update is not None
    heard, ref = Heard(nonce=update.nonce), update.offer.release
    offer = ground.offer(rollout, victim, ref, grant=Grant.ACTIVATE, nonce=update.nonce, grant_s=900, heard=heard)
    await ground.put(Kind.OFFER, offer, device=victim.name, rollout=rollout)


def _reasons(victim: Victim) -> set[str]:
    update = victim.agent.runner.update
    return {reason.code for reason in update.reasons} if update else set()
