"""Devices that are taken away, held or given another chance: real agents, a real broker, ``serve`` as a process."""

import asyncio
from typing import Any

from device_client.floors_file import FloorsFile
from protocol.directives import Grant
from protocol.states import Phase, State
from protocol.trust.floors import Floors, higher
from tests.integration.rollout_proof import prove_sound, until_downloading, until_said, watched
from tests.integration.small_fleet import SmallFleet, installed, make_package, make_tree, small_fleet, until

SLOW: dict[str, Any] = {"download": {"rate_limit_bytes_s": 300_000}}
SMALL, LARGE = 50_000, 1_200_000
"""Bytes of an image: gone in a moment, and some seconds long under ``SLOW``."""


async def _release(fleet: SmallFleet, version: str, size_bytes: int) -> None:
    """Publish it, under the one security counter, so that a device may go from any to any."""
    tree = await asyncio.to_thread(make_tree, fleet.place, version, size_bytes)
    await fleet.publish(await asyncio.to_thread(make_package, fleet.home, tree, version, counter=1))


def _says_hold(update: dict[str, Any]) -> bool:
    """Whether the orchestrator knows that a device waits for the hold to end."""
    return update["state"] == State.WAITING and [reason["code"] for reason in update["reasons"]] == ["hold"]


def _held(fleet: SmallFleet, name: str) -> bool:
    """Whether a device waits to download because it was told to."""
    update = fleet.agents[name].runner.update
    return (
        update is not None
        and (update.state, update.phase) == (State.WAITING, Phase.DOWNLOAD)
        and [reason.code for reason in update.reasons] == ["hold"]
    )


async def test_what_is_downloading_gives_way_and_is_offered_again() -> None:
    """A heavier rollout takes the device in mid-transfer; the lighter one, newer, comes back as attempt 2."""
    async with small_fleet() as fleet:
        factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0", SMALL)
        await _release(fleet, "1.1.0", SMALL)
        await _release(fleet, "1.2.0", LARGE)
        await fleet.enrol(["d1"], factory, **SLOW)
        async with watched(fleet) as offers:
            fleet.start_agents(["d1"])
            await fleet.roll_out("light", "1.2.0", weight=100)
            await until_downloading(fleet, ["d1"])
            await fleet.roll_out("heavy", "1.1.0", weight=900)
            await until(lambda: installed(fleet.devices["d1"]) == "1.1.0", "the device runs the heavier release")
            await fleet.until_state("heavy", "completed")
            await fleet.until_state("light", "completed")
            assert installed(fleet.devices["d1"]) == "1.2.0"
            first = [offer for offer in offers.seen if (offer.rollout, offer.attempt) == ("light", 1)]
            closed = [offer for offer in first if offer.grant is Grant.CLOSED]
            assert {offer.grant for offer in first} == {Grant.DOWNLOAD, Grant.CLOSED}
            assert closed[0].reason == "superseded by rollout heavy"
            assert offers.heard_outcome("d1", "light", 1)
            assert offers.seen.index(closed[0]) < min(offers.seen.index(o) for o in offers.seen if o.rollout == "heavy")
            again = [grant for attempt, grant in offers.of("d1", "light") if attempt == 2]
            assert again[:2] == [Grant.DOWNLOAD, Grant.ACTIVATE]
            assert {attempt for attempt, _ in offers.of("d1", "heavy")} == {1}
            assert offers.heard_outcome("d1", "light", 2)
        await prove_sound(fleet)


async def test_a_halt_of_the_fleet_stops_downloads_until_it_is_lifted() -> None:
    """All say waiting(hold), no byte comes and nothing is granted; then all go on where they were."""
    names = ["d1", "d2", "d3"]
    async with small_fleet() as fleet:
        factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0", SMALL)
        await _release(fleet, "1.1.0", LARGE)
        await fleet.enrol(names, factory, **SLOW)
        async with watched(fleet) as offers:
            fleet.start_agents(names)
            await fleet.roll_out("r-1", "1.1.0")
            await until_downloading(fleet, names)
            await fleet.call("post", "/fleet/halt", {"reason": "a fire"})
            await until(lambda: all(_held(fleet, name) for name in names), "every device waits for the hold to end")
            for name in names:
                await until_said(fleet, name, _says_hold)
            fetchers = [fleet.agents[name]._fetcher for name in names]
            held_at = [one.last.present_bytes for one in fetchers if one.last]
            await asyncio.sleep(1)
            assert [one.last.present_bytes for one in fetchers if one.last] == held_at
            assert max(held_at) < LARGE
            assert offers.grants() == 0
            assert all(_held(fleet, name) for name in names)
            await fleet.call("post", "/fleet/lift", {"reason": "it is out"})
            await fleet.until_state("r-1", "completed")
            assert [installed(home) for home in fleet.devices.values()] == ["1.1.0"] * len(names)
            assert {attempt for name in names for attempt, _ in offers.of(name, "r-1")} == {1}
        await prove_sound(fleet)


async def test_a_person_lets_a_device_try_again_that_set_the_release_aside() -> None:
    """Rolled back and quarantined; ``resume`` alone offers it nothing, ``retry`` lets attempt 2 succeed."""
    async with small_fleet() as fleet:
        factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0", SMALL)
        await _release(fleet, "1.1.0", SMALL)
        mended = fleet.place / "mended"
        await fleet.enrol(["d1"], factory, installer={"health": ["/usr/bin/test", "-e", str(mended)]})
        async with watched(fleet) as offers:
            fleet.start_agents(["d1"])
            await fleet.roll_out("r-1", "1.1.0", halt_rules=[{"classes": ["health"], "count": 1}])
            await fleet.until_state("r-1", "halted")
            await until(lambda: offers.heard_outcome("d1", "r-1", 1), "the device was told that its outcome came")
            sha256 = offers.seen[-1].release.sha256
            assert _quarantine(fleet) == {sha256: 1}
            assert installed(fleet.devices["d1"]) == "1.0.0"
            mended.touch()
            await fleet.call("post", "/rollouts/r-1/resume", {"reason": "the check was mended"})
            await fleet.until_state("r-1", "completed")
            assert installed(fleet.devices["d1"]) == "1.0.0"
            assert {attempt for attempt, _ in offers.of("d1", "r-1")} == {1}
            await fleet.call("post", "/rollouts/r-1/retry", {"devices": ["d1"]})
            await until(lambda: installed(fleet.devices["d1"]) == "1.1.0", "the second attempt succeeds")
            await fleet.until_state("r-1", "completed")
            assert offers.heard_outcome("d1", "r-1", 2)
            said = await fleet.call("get", "/devices/d1/explain")
            assert "succeeded" in " ".join(said["sentences"])
        await prove_sound(fleet)


def _quarantine(fleet: SmallFleet) -> dict[str, int]:
    """Releases that the device set aside, from its own file, with the attempt that was rolled back."""
    floors = FloorsFile(fleet.devices["d1"].state, Floors, higher).load()
    assert floors is not None
    return dict(floors.quarantine)
