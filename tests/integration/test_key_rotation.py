"""Keys that rotate while a rollout runs: first both are listed, then the old ones leave; nobody refuses anything."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from orchestrator.releases.package_trust import director_keys, read_home, timestamp_keys
from orchestrator.storage import signatures
from orchestrator.storage.database import Database
from protocol.clock import SystemClock
from tests.integration.small_fleet import SmallFleet, installed, make_package, make_tree, small_fleet, until

NAMES, LATE = ["d1", "d2"], "d3"
SLOW = {"download": {"rate_limit_bytes_s": 300_000}}


async def _flagship(*words: object) -> int:
    return await asyncio.to_thread(main, [str(word) for word in words])


async def _ceremony(fleet: SmallFleet, name: str, *words: object) -> int:
    """Propose, sign with every key of the folder, publish."""
    home, file = fleet.home.path, fleet.place / name
    keys = sorted((home / "publisher" / "keys").glob("*.key"))
    code = await _flagship("trust", "propose", "-o", file, *words, "--home", home)
    for key in keys if not code else ():
        await _flagship("trust", "sign", file, "--key", key, "--yes")
    return code or await _flagship("trust", "publish", file, "--home", home)


async def _new_key(place: Path, name: str) -> Path:
    """A key in a folder, and its public half."""
    assert await _flagship("trust", "key", place / f"{name}.key", "--plain") == 0
    return place / f"{name}.pub"


@pytest.mark.slow
async def test_director_timestamp_and_root_rotate_while_a_rollout_runs() -> None:
    """Both director keys are listed, all is signed anew, the old one leaves; devices finish and refuse no message."""
    async with small_fleet() as fleet:
        factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0")
        new = await asyncio.to_thread(make_tree, fleet.place, "1.1.0", 900_000)
        await fleet.publish(await asyncio.to_thread(make_package, fleet.home, new, "1.1.0"))
        await fleet.enrol([*NAMES, LATE], factory, **SLOW)
        fleet.start_agents(NAMES)
        await fleet.roll_out("r-1", "1.1.0")
        transfers = [agent._fetcher for agent in fleet.agents.values()]
        await until(
            lambda: all(t.last and t.last.present_bytes > 50_000 for t in transfers), "everyone in mid-transfer"
        )

        director, timestamp = await asyncio.to_thread(_online_keys, fleet)
        assert await _ceremony(fleet, "too early", "--remove", f"director-harbour={director[:12]}") == 2
        news = [
            ("director-harbour", await _new_key(fleet.home.signer, "director-2")),
            ("timestamp", await _new_key(fleet.home.signer, "timestamp-2")),
            ("root", await _new_key(fleet.home.publisher / "keys", "root-2")),
        ]
        assert (
            await _ceremony(fleet, "add", *(word for role, file in news for word in ("--add", f"{role}={file}"))) == 0
        )
        database = await Database.open(fleet.home.database)
        try:
            async with asyncio.timeout(60):
                while not await _none_under(database, director):
                    await asyncio.sleep(0.05)
        finally:
            await database.close()
        leaving = [f"director-harbour={director[:12]}", f"timestamp={timestamp[:12]}", "root=root-1"]
        assert await _ceremony(fleet, "remove", *(word for key in leaving for word in ("--remove", key))) == 0
        fleet.start_agents([LATE])
        await fleet.until_state("r-1", "completed")
        assert [installed(home) for home in fleet.devices.values()] == ["1.1.0"] * 3
        new_director, _ = await asyncio.to_thread(_online_keys, fleet)
        assert new_director != director
        for agent in fleet.agents.values():
            assert not agent._refusals.counts
            assert agent._verifier._trusted is not None
            assert agent._verifier._trusted.roles["root"].version == 3
            assert {floor.keyid for floor in agent._verifier.floors.orders.values()} == {new_director}


async def _none_under(database: Database, keyid: str) -> bool:
    async with database.read() as conn:
        return not await signatures.signed_by(conn, keyid, SystemClock().now())


def _online_keys(fleet: SmallFleet) -> tuple[str, str]:
    (director,) = director_keys(fleet.home.trust, "harbour")
    (timestamp,) = timestamp_keys(read_home(fleet.home.trust))
    return director, timestamp
