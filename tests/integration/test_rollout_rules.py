"""Rules of rollouts that need devices which obey them: real agents, a real broker, ``serve`` as a process."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

from protocol.states import State
from protocol.windows import DAYS
from tests.integration.rollout_proof import prove_sound, watched
from tests.integration.small_fleet import (
    DEADLINE_S,
    SmallFleet,
    installed,
    make_package,
    make_tree,
    small_fleet,
    until,
)

EVERYBODY = {"name": "all", "percent": 100}
CHANGING = frozenset({State.ACTIVATING, State.VERIFYING, State.COMMITTING, State.ROLLING_BACK})


async def _releases(fleet: SmallFleet, *versions: str) -> None:
    """Publish them all under one security counter, so that a device may go back."""
    for version in versions:
        tree = fleet.place / f"tree-{version}"
        if not tree.exists():
            await asyncio.to_thread(make_tree, fleet.place, version, 50_000)
        await fleet.publish(await asyncio.to_thread(make_package, fleet.home, tree, version, counter=1))


def _changing(fleet: SmallFleet) -> Iterator[str]:
    """Devices between the activation and the proof, as their own journals say."""
    for name, agent in fleet.agents.items():
        update = agent.runner.update
        if update is not None and update.state in CHANGING:
            yield name


async def _other_than(fleet: SmallFleet, rollout: str) -> str:
    """The one other rollout, once it is there."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = [one["id"] for one in (await fleet.call("get", "/rollouts"))["items"] if one["id"] != rollout]
            if found:
                (other,) = found
                return str(other)
            await asyncio.sleep(0.1)


async def test_who_fails_tries_again_and_a_halt_takes_back_what_it_gave() -> None:
    """One passes at its second try; one fails twice, which halts; those with the new version go back by themselves."""
    async with small_fleet() as fleet:
        factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0", 50_000)
        await _releases(fleet, "1.0.0", "1.1.0")
        flag = fleet.place / "failed-once"
        once = ["/bin/sh", "-c", f"test -e {flag} || {{ touch {flag}; exit 1; }}"]
        await fleet.enrol(["good"], factory)
        await fleet.enrol(["second"], factory, installer={"health": once})
        await fleet.enrol(["bad"], factory, installer={"health": ["/bin/false"]})
        fleet.start_agents(["good", "second", "bad"])
        stages = [{"name": "first", "devices": ["good", "second"]}, EVERYBODY]
        rules: dict[str, Any] = {
            "retries": {"health": {"times": 1, "backoff_s": 0.1}},
            "halt_rules": [{"classes": ["health"], "count": 1}],
            "on_halt": "revert",
        }
        async with watched(fleet) as offers:
            await fleet.roll_out("r-1", "1.1.0", stages=stages, **rules)
            halted = await fleet.until_state("r-1", "halted")
            await until(lambda: offers.heard_outcome("bad", "r-1", 2), "the device was told that its outcome came")
        for device in ("second", "bad"):
            assert {attempt for attempt, _ in offers.of(device, "r-1")} == {1, 2}
            assert offers.heard_outcome(device, "r-1", 1)
        assert {attempt for attempt, _ in offers.of("good", "r-1")} == {1}
        assert flag.exists()
        assert "health" in str(halted)
        await fleet.until_state(await _other_than(fleet, "r-1"), "completed")
        assert {name: installed(home) for name, home in fleet.devices.items()} == dict.fromkeys(fleet.devices, "1.0.0")
        said = await fleet.call("get", "/devices/bad/explain")
        assert "retry r-1 --device bad" in " ".join(said["sentences"])
        await prove_sound(fleet)


async def test_one_device_of_a_site_at_a_time_and_nothing_while_the_fleet_is_held() -> None:
    """Never two of a site between activation and proof, also with a slow health check; a fleet halt holds all."""
    async with small_fleet() as fleet, AsyncExitStack() as stack:
        factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0", 50_000)
        await _releases(fleet, "1.1.0")
        names = ["a1", "a2", "a3", "b1", "b2"]
        for name in names:
            own = {"labels": {"site": name[0]}}
            await fleet.enrol([name], factory, device=own, installer={"health": ["/bin/sleep", "0.5"]})
        fleet.start_agents(names)
        offers = await stack.enter_async_context(watched(fleet))
        await fleet.roll_out("r-1", "1.1.0", max_unavailable=[{"label": "site", "count": 1}])
        seen: list[tuple[str, ...]] = []

        def have_it(at_least: int) -> bool:
            seen.append(tuple(_changing(fleet)))
            return sum(installed(home) == "1.1.0" for home in fleet.devices.values()) >= at_least

        await until(lambda: have_it(1), "the first has the new version")
        held = await fleet.call("post", "/fleet/halt", {"reason": "a fire"})
        assert held["rollouts"] == ["r-1"]
        await until(lambda: not list(_changing(fleet)), "who had begun has ended")
        before = {name: installed(home) for name, home in fleet.devices.items()}
        assert "1.0.0" in before.values()
        for _ in range(50):
            await asyncio.sleep(0.02)
            assert not list(_changing(fleet))
        assert {name: installed(home) for name, home in fleet.devices.items()} == before
        await fleet.call("post", "/fleet/lift", {"reason": "it is out"})
        await until(lambda: have_it(len(names)), "all have the new version")
        await fleet.until_state("r-1", "completed")
        assert {device for device, _ in offers.crowds} == set(names)
        assert [(one, others) for one, others in offers.crowds if one[0] in {other[0] for other in others}] == []
        assert max(len([name for name in at if name[0] == "a"]) for at in seen) == 1
        assert max(len([name for name in at if name[0] == "b"]) for at in seen) == 1
        await prove_sound(fleet)


async def test_an_emergency_overtakes_what_waits_for_its_window() -> None:
    """A device that holds the lighter release and waits gives it up, takes the heavier one at once and keeps it."""
    async with small_fleet() as fleet:
        factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0", 50_000)
        await _releases(fleet, "1.1.0", "1.2.0")
        await fleet.enrol(["d1"], factory)
        fleet.start_agents(["d1"])
        shut = {"days": [DAYS[(datetime.now(UTC).weekday() + 3) % 7]], "start": "12:00", "minutes": 1}
        await fleet.roll_out("slow", "1.1.0", policy={"windows": [shut]})

        def waits() -> bool:
            update = fleet.agents["d1"].runner.update
            return update is not None and [reason.gate for reason in update.reasons] == ["window"]

        await until(waits, "the device has fetched 1.1.0 and waits for its window")
        await fleet.roll_out("fast", "1.2.0", emergency=True, policy={"windows": [shut]})
        await fleet.until_state("fast", "completed")
        assert installed(fleet.devices["d1"]) == "1.2.0"
        said = await fleet.call("get", "/devices/d1/explain", rollout="slow")
        assert "superseded" in " ".join(said["sentences"])
        await prove_sound(fleet)
