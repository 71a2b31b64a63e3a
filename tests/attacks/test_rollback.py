"""R: what was valid once."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from device_client.config import DeviceHome
from protocol.directives import Action
from protocol.errors import ErrorCode
from protocol.topics import Kind
from tests.attacks.arena import Arena, Victim
from tests.attacks.books import RELEASES, Books
from tests.attacks.catalogue import attack
from tests.integration.small_fleet import installed, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
AGENT_RUNS = 5
RESET = Path(__file__).parents[2] / "docs" / "how-to" / "factory-reset.sh"


@attack("R1", "E_ROLLBACK_METADATA")
async def test_r1_an_older_timestamp(ground: Arena) -> None:
    """The broker plays the timestamp of the day before again."""
    async with ground.victim() as victim:
        older = ground.metadata()["timestamp"]
        books = await _a_newer_day(ground, victim)
        await ground.put(Kind.TRUST_TIMESTAMP, older)
        await ground.fails(victim, ErrorCode.ROLLBACK_METADATA)
        assert victim.believes["timestamp"] == books.timestamp.version


@attack("R2", "E_ROLLBACK_METADATA")
async def test_r2_an_older_snapshot(ground: Arena) -> None:
    """A thief of the timestamp's key names the snapshot of the day before, under which newer releases are unknown."""
    async with ground.victim() as victim:
        older = {f"{Books(ground).snapshot.version}.snapshot.json": ground.metadata()["snapshot"]}
        books = await _a_newer_day(ground, victim)
        newest = books.snapshot.version
        books.snapshot.version -= 1
        books.timestamp.version += 1
        await books.publish(older)
        await ground.fails(victim, ErrorCode.ROLLBACK_METADATA)
        assert victim.believes["snapshot"] == newest


@attack("R3", "E_ROLLBACK_METADATA")
async def test_r3_an_older_list_of_releases(ground: Arena) -> None:
    """Thieves of the snapshot's and the timestamp's keys name the releases of the day before."""
    async with ground.victim() as victim:
        older = {f"{Books(ground).releases.version}.{RELEASES}.json": ground.metadata()[RELEASES]}
        books = await _a_newer_day(ground, victim)
        newest = books.releases.version
        books.releases.version -= 1
        books.snapshot.version += 1
        books.timestamp.version += 1
        await books.publish(older)
        await ground.fails(victim, ErrorCode.ROLLBACK_METADATA)
        assert victim.believes[RELEASES] == newest


@attack("R4", "E_METADATA")
async def test_r4_a_role_that_the_snapshot_drops(ground: Arena) -> None:
    """The same thieves let the snapshot forget the list of releases, so that its version could begin anew."""
    async with ground.victim() as victim:
        books = await _a_newer_day(ground, victim)
        books.snapshot.version += 1
        books.timestamp.version += 1
        books.dropped = [RELEASES]
        await books.publish()
        await ground.fails(victim, ErrorCode.METADATA)
        assert victim.believes[RELEASES] == books.releases.version


@attack("R5", "E_ROLLBACK_METADATA")
async def test_r5_an_older_set_after_the_cache_was_wiped(ground: Arena) -> None:
    """The device's store of trust is gone; the set of the day before comes under a timestamp by the stolen key."""
    async with ground.victim() as victim:
        newer = await _a_newer_day(ground, victim)
        async with victim.switched_off():
            shutil.rmtree(victim.home.trust)
            await _an_older_set(ground, newer)
        await ground.fails(victim, ErrorCode.ROLLBACK_METADATA)
        assert victim.agent._verifier.stale, "nothing of it is believed"
        newer.timestamp.version += 2  # above what the thief signed
        await newer.publish()
        await until(lambda: not victim.agent._verifier.stale, "the newer set is believed again")


@attack("R6", "E_ROLLBACK_METADATA")
async def test_r6_an_older_set_after_a_factory_reset(ground: Arena) -> None:
    """A device is reset to what left the factory, which keeps its identity and floors, and gets the same older set."""
    async with ground.victim() as victim:
        newer = await _a_newer_day(ground, victim)
        assert await _reset(victim.home, ground.factory) == AGENT_RUNS
        async with victim.switched_off():
            assert await _reset(victim.home, ground.factory) == 0
            assert not list(victim.home.trust.iterdir())
            await _an_older_set(ground, newer)
        await ground.fails(victim, ErrorCode.ROLLBACK_METADATA)
        assert victim.agent._verifier.stale, "nothing of it is believed"


@attack("R7", "E_REPLAY")
async def test_r7_an_older_order(ground: Arena) -> None:
    """The operator has put a rollout on hold; the broker plays the go-ahead from before again."""
    async with ground.victim() as victim:
        announced = victim.agent.runner.announcements
        go_ahead = ground.announcement("r-r7", ground.ref())
        await ground.put(Kind.ANNOUNCE, go_ahead, rollout="r-r7")
        await until(lambda: "r-r7" in announced, "the go-ahead is heard")
        await ground.put(Kind.ANNOUNCE, ground.announcement("r-r7", ground.ref(), action=Action.HOLD), rollout="r-r7")
        await until(lambda: announced["r-r7"].action is Action.HOLD, "the hold is heard")
        await ground.put(Kind.ANNOUNCE, go_ahead, rollout="r-r7")
        await ground.fails(victim, ErrorCode.REPLAY)
        assert announced["r-r7"].action is Action.HOLD


@attack("R8", "E_EQUIVOCATION")
async def test_r8_two_orders_of_one_number(ground: Arena) -> None:
    """A stolen director signs a go-ahead under the very number of the hold that the operator gave."""
    async with ground.victim() as victim:
        announced = victim.agent.runner.announcements
        for action in (Action.HOLD, Action.INSTALL):
            order = ground.announcement("r-r8", ground.ref(), seq=999_999, action=action)
            await ground.put(Kind.ANNOUNCE, order, rollout="r-r8")
            await until(lambda: "r-r8" in announced, "the hold is heard")
        await ground.fails(victim, ErrorCode.EQUIVOCATION)
        assert announced["r-r8"].action is Action.HOLD


@attack("R9", "E_ROLLBACK_RELEASE")
async def test_r9_a_release_below_the_counter(ground: Arena) -> None:
    """A stolen director orders a release that is signed and listed, but older than a fix that must stay."""
    async with ground.victim() as victim:
        await ground.roll_out("r-r9", victim, "1.1.0")
        await until(lambda: victim.agent._verifier.floors.counters == {"app": 5}, "the fix is committed")
        await until(lambda: victim.agent.runner.update is None, "its update is closed")
        await ground.order(victim, "r-r9-back", ground.ref("1.0.5"))
        await ground.fails(victim, ErrorCode.ROLLBACK_RELEASE, runs="1.1.0")


@attack("R10", "rolled back; counters stay, and the next release is taken")
async def test_r10_a_fallback_is_no_rollback(ground: Arena) -> None:
    """A genuine release does not come up: the device falls back to older software, which no floor may prevent."""
    health = ["/bin/sh", "-c", "! grep -q 1.1.0 version"]
    async with ground.victim(installer={"health": health}) as victim:
        await ground.roll_out("r-r10", victim, "1.1.0")
        await ground.seen(victim, ErrorCode.HEALTH)
        assert installed(victim.home) == "1.0.0"
        assert victim.agent._verifier.floors.counters == {}
        await ground.roll_out("r-r10-next", victim, "1.0.5")
        await until(lambda: victim.agent._verifier.floors.counters == {"app": 1}, "the next release is committed")
        assert installed(victim.home) == "1.0.5"


async def _a_newer_day(ground: Arena, victim: Victim) -> Books:
    """The owner signs everything anew, and the victim believes it."""
    books = Books(ground)
    books.bump()
    await books.publish()
    await victim.believing(RELEASES, books.releases.version)
    return books


async def _an_older_set(ground: Arena, newer: Books) -> None:
    """What was published before, with a timestamp that is fresher than all."""
    older = Books(ground)
    older.timestamp.version = newer.timestamp.version + 1
    await older.publish()


async def _reset(home: DeviceHome, factory: Path) -> int:
    """As docs/how-to/factory-reset.md says."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    reset = await asyncio.create_subprocess_exec(RESET, home.path, factory, "1.0.0", env={**os.environ, "PATH": path})
    return await reset.wait()
