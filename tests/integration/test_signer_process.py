"""The signer on real fleets: a database that is put back, and a signer that runs, dies and returns by itself."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.config import Home
from orchestrator.demo.processes import Server, command
from orchestrator.signer.request_log import check_log
from orchestrator.storage.database import Database
from orchestrator.storage.published import highest_order
from protocol.errors import ErrorCode
from tests.integration.small_fleet import SmallFleet, installed, make_package, make_tree, small_fleet, until

REPLAYS = (ErrorCode.REPLAY.value, ErrorCode.EQUIVOCATION.value)


async def _begin(fleet: SmallFleet, versions: tuple[str, ...]) -> None:
    """One device on 1.0.0, and releases that are published."""
    factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0", 1000)
    for version in versions:
        tree = await asyncio.to_thread(make_tree, fleet.place, version, 20_000)
        await fleet.publish(await asyncio.to_thread(make_package, fleet.home, tree, version))
    await fleet.enrol(["d1"], factory)
    fleet.start_agents(["d1"])


async def _order(fleet: SmallFleet) -> tuple[int, int]:
    database = await Database.open(fleet.home.database)
    try:
        async with database.read() as conn:
            return await highest_order(conn)
    finally:
        await database.close()


def _database_files(home: Home) -> list[Path]:
    return sorted(home.path.glob(home.database.name + "*"))


async def test_a_database_that_was_put_back_goes_on_under_a_new_epoch() -> None:
    """An old copy, and a broker and a device that are ahead of it: the next rollout succeeds, nothing is a replay.

    The id r-2 is given a second time, to another release: ids are the database's.
    """
    async with small_fleet() as fleet:
        await _begin(fleet, ("1.1.0", "1.2.0", "1.3.0"))
        await fleet.roll_out("r-1", "1.1.0")
        await fleet.until_state("r-1", "completed")
        await fleet.serve.stop()
        old = await _order(fleet)
        copy = fleet.place / "copy"
        copy.mkdir()
        for file in _database_files(fleet.home):
            shutil.copy(file, copy)
        await fleet.serve.start()
        await fleet.roll_out("r-2", "1.2.0")
        await fleet.until_state("r-2", "completed")
        await fleet.serve.stop()
        newest = await _order(fleet)
        assert old < newest and newest[0] == 1

        for file in _database_files(fleet.home):
            file.unlink()
        for file in copy.iterdir():
            shutil.copy(file, fleet.home.path)
        await fleet.serve.start()
        await fleet.roll_out("r-2", "1.3.0")
        await fleet.until_state("r-2", "completed")
        assert installed(fleet.devices["d1"]) == "1.3.0"
        refusals = fleet.agents["d1"].inbox.refusals.counts
        assert not any(refusals[code] for code in REPLAYS), refusals
        events = (await fleet.call("get", "/events"))["items"]
        assert [event["kind"] for event in events].count("epoch_raised") == 1
        await fleet.serve.stop()
        order = await _order(fleet)
        assert order[0] == 2 and order > newest
        lines, head = check_log(fleet.home.signer / "requests.log")
        assert lines == head.n and head.order == order


@contextlib.asynccontextmanager
async def _own_signer(fleet: SmallFleet) -> AsyncIterator[Server]:
    """The keys in a home of their own, with a signer on it; serve's home has none any more."""
    await fleet.serve.stop()
    own = Home(fleet.place / "s")
    own.path.mkdir(mode=0o700)
    socket = own.path / "s.sock"
    with fleet.home.config.open("a") as config:
        config.write(f"\n[signer]\nsocket = {json.dumps(str(socket))}\n")
    shutil.copy(fleet.home.config, own.config)
    fleet.home.signer.rename(own.signer)
    signer = Server(fleet.place / "signer.log", ["flagship", "signer", "--home", own.path], {})
    await signer.start()
    await fleet.serve.start()
    try:
        yield signer
    finally:
        await signer.stop()


@pytest.mark.slow
async def test_serve_signs_through_a_process_that_dies_and_returns() -> None:
    """Without keys at serve; while the signer is dead, status says so, and nothing is lost: the rollout ends."""
    async with small_fleet() as fleet, _own_signer(fleet) as signer:
        own = Home(fleet.place / "s")
        await until((own.path / "s.sock").exists, "the signer listens")
        assert not fleet.home.signer.exists()
        await _begin(fleet, ("1.1.0", "1.2.0"))
        await fleet.roll_out("r-1", "1.1.0")
        await fleet.until_state("r-1", "completed")

        await signer.kill()
        await fleet.roll_out("r-2", "1.2.0")
        async with asyncio.timeout(30):
            while "nobody listens there" not in ((await fleet.call("get", "/status")).get("signer") or ""):
                await asyncio.sleep(0.05)
        shown = await command("flagship", "status", "--home", fleet.home.path)
        assert "SIGNER: signer" in shown
        assert installed(fleet.devices["d1"]) == "1.1.0"

        await signer.start()
        await fleet.until_state("r-2", "completed")
        assert installed(fleet.devices["d1"]) == "1.2.0"
        assert (await fleet.call("get", "/status"))["signer"] is None
        assert "whole" in await command("flagship", "signer", "--home", own.path, "check-log")
