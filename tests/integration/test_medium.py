"""A device without a link updates from a medium, and is heard when there is a link again."""

import asyncio
import shutil
from typing import Any

from device_client import local_socket
from orchestrator.demo.processes import command
from tests.integration.small_fleet import SmallFleet, installed, make_package, make_tree, small_fleet, until

GATES: dict[str, Any] = {"disk_reserve_bytes": 0}


async def _ask(fleet: SmallFleet, name: str, verb: str, **words: str) -> dict[str, Any]:
    return await asyncio.to_thread(local_socket.request, fleet.devices[name].socket, verb, **words)


async def _until_waiting(fleet: SmallFleet, name: str, code: str) -> None:
    async with asyncio.timeout(20):
        while True:
            update = (await _ask(fleet, name, "status"))["update"]
            if update and code in [reason["code"] for reason in update["reasons"]]:
                return
            await asyncio.sleep(0.1)


async def _restart(fleet: SmallFleet, name: str) -> None:
    fleet.tasks[name].cancel()
    await asyncio.gather(fleet.tasks[name], return_exceptions=True)
    fleet.start_agents([name])
    await until(fleet.devices[name].socket.exists, "the agent again")


async def _prepare(fleet: SmallFleet) -> None:
    """Three devices that are never started while there is a link: one trusts media, one does not, one has no medium."""
    factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0")
    new = await asyncio.to_thread(make_tree, fleet.place, "1.1.0")
    await fleet.publish(await asyncio.to_thread(make_package, fleet.home, new, "1.1.0"))
    await fleet.enrol(["d1"], factory, gates=GATES | {"allow_offline": True, "require_approval": True})
    await fleet.enrol(["d2", "d3"], factory, gates=GATES)
    await fleet.roll_out("r-1", "1.1.0")


async def test_a_device_without_a_link_updates_from_a_medium() -> None:
    """Orchestrator and broker are gone: it goes all the way unasked, commits, and its outcome is heard later.

    Its own gates hold, here a person's approval; a restart meanwhile, with the medium gone, keeps what was taken. A
    device whose owner does not allow that takes the same medium and waits, with the reason; a link frees it. One that
    is not on the medium takes nothing from it.
    """
    async with small_fleet() as fleet:
        await _prepare(fleet)
        stick = fleet.place / "stick"
        said = await command(
            "flagship", "rollout", "offline", "r-1", "d1", "d2", "--to", stick, "--until", "30d", "--home",
            fleet.home.path,
        )  # fmt: skip
        assert "does not reach them" in said and "hand it in by" in said
        await fleet.serve.stop()
        fleet.start_agents(["d1", "d2", "d3"])
        await until(lambda: all(fleet.devices[name].socket.exists() for name in fleet.agents), "agents that answer")

        handed = await command("flagship-device", "update", "--from", stick, "--home", fleet.devices["d1"].path)
        assert "acts unasked until" in handed
        assert "allow_offline is not set" in (await _ask(fleet, "d2", "update", medium=str(stick)))["taken"]["r-1"]
        await _until_waiting(fleet, "d2", "e_unsafe")
        runner = fleet.agents["d1"].runner
        await until(lambda: runner.update is not None and runner.update.phase == "install", "all of it fetched")
        await _until_waiting(fleet, "d1", "approval")
        await asyncio.to_thread(shutil.rmtree, stick)  # from here on there is only what was taken, and later the link
        await _restart(fleet, "d1")
        await _ask(fleet, "d1", "approve")
        await until(lambda: installed(fleet.devices["d1"]) == "1.1.0", "the new version without a link")
        runner = fleet.agents["d1"].runner
        await until(lambda: runner.update is not None and runner.update.state == "succeeded", "committed by itself")
        status = await _ask(fleet, "d1", "status")
        assert (status["connected"], status["update"]["offline"]) == (False, True)
        assert installed(fleet.devices["d2"]) == "1.0.0"

        await fleet.serve.start()
        await fleet.until_state("r-1", "completed")
        assert [installed(fleet.devices[name]) for name in ("d1", "d2", "d3")] == ["1.1.0"] * 3
        events = (await fleet.call("get", "/events"))["items"]
        assert [e["rollout"] for e in events if e["kind"] == "rollout_offline"] == ["r-1"]
        unasked = [event["device"] for event in events if "acted unasked" in event["text"]]
        assert unasked == ["d1"]
        await until(lambda: runner.update is None, "the outcome heard")
