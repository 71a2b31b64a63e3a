"""Updates that come from elsewhere than the broker: the orchestrator's own listener over TLS, and an exported tree."""

import asyncio
import json
from pathlib import Path
from typing import Any

from device_client.download.directory_source import DirectorySource
from device_client.identity_files import IdentityFiles
from orchestrator.cli.main import main as flagship
from tests.certificates import Authority, free_ports
from tests.device_client.download.mirror import Mirror, serving, source_of
from tests.device_client.test_network import HEAD, RADIO, WIRED
from tests.integration.small_fleet import (
    DEADLINE_S,
    PRODUCT,
    SmallFleet,
    installed,
    make_package,
    make_tree,
    small_fleet,
)

SILENCE_S = 10.0


async def publish(fleet: SmallFleet) -> dict[str, Any]:
    """gateway/1.1.0, published; what serve says of its chunks."""
    tree = make_tree(fleet.place, "1.1.0")
    await fleet.publish(await asyncio.to_thread(make_package, fleet.home, tree, "1.1.0"))
    listed = await fleet.call("get", f"/releases/{PRODUCT}/1.1.0/chunks", limit="1000")
    return {row["cid"]: row["length"] for row in listed["items"]}


async def export(fleet: SmallFleet, directory: Path) -> None:
    """Write the tree."""
    words = ["release", "export", directory, "--home", fleet.home.path]
    assert await asyncio.to_thread(flagship, [str(word) for word in words]) == 0


def without_broker(*sources: dict[str, Any]) -> dict[str, Any]:
    """A device's sources; the broker is none of them."""
    return {"sources": list(sources)}


async def test_devices_update_from_the_listener_and_from_a_medium() -> None:
    """The listener and the exported tree have the same chunks; a device of each comes to the new version.

    Neither asks the broker for a chunk. The third has a mirror that lies first in its list, and the listener behind it:
    what the liar gives is refused, named, and fetched again. The fourth waits for a wire, for its radio link is dear.
    """
    port, _ = free_ports()
    async with small_fleet(FLAGSHIP_MIRROR__PORT=str(port)) as fleet:
        url, tree = f"https://127.0.0.1:{port}", fleet.place / "tree"
        factory = make_tree(fleet.place, "1.0.0", 1000)
        mirror, medium = {"kind": "https", "url": url}, {"kind": "directory", "path": str(tree)}
        await fleet.enrol(["d1"], factory, download=without_broker(mirror))
        await fleet.enrol(["d2"], factory, download=without_broker(medium))
        chunks = await publish(fleet)
        source = source_of(url, fleet.home.devices_ca)
        served = await source.collect(list(chunks), SILENCE_S)
        await source.release()
        assert {cid: len(data) for cid, data in served.chunks.items()} == chunks
        await export(fleet, tree)
        exported = await DirectorySource(tree).collect(list(chunks), SILENCE_S)
        assert exported == served

        authority = Authority(fleet.place / "liar-ca.pem", "liar")
        lies = {cid: b"x" * len(data) for cid, data in served.chunks.items()}
        async with serving(Mirror(lies), authority, fleet.place) as liar:
            lying = {"kind": "https", "url": liar.url}
            await fleet.enrol(["d3"], factory, download=without_broker(lying, mirror))
            for name in ("d1", "d2", "d3"):
                trust_too(fleet, name, authority)
            routes = Routes(fleet.place / "proc")
            metered = {"metered_interfaces": ["wwan*"], "proc": str(routes.proc)}
            dear = {**mirror, "allow_metered": False}
            await fleet.enrol(["d4"], factory, download=without_broker(dear), network=metered)
            names = ["d1", "d2", "d3", "d4"]
            fleet.start_agents(names)
            asked = forbid_chunks(fleet, names)
            await fleet.roll_out("r-1", "1.1.0")
            await until_told(fleet, "d4", "interface wwan0 is metered")
            routes.plug_in()
            await fleet.until_state("r-1", "completed")
            assert [installed(fleet.devices[name]) for name in names] == ["1.1.0"] * 4
            assert asked == []
            assert liar.asked
            assert fleet.agents["d3"]._refusals.counts["E_CHUNK"] > 0
            assert "E_CHUNK" not in fleet.agents["d1"]._refusals.counts


def trust_too(fleet: SmallFleet, name: str, authority: Authority) -> None:
    """Put another CA beside the fleet's in a device's file, so that the liar's certificate is as good as any."""
    file = IdentityFiles(fleet.devices[name]).ca
    file.write_text(file.read_text() + authority.path.read_text())


def forbid_chunks(fleet: SmallFleet, names: list[str]) -> list[str]:
    """Who asks the broker for chunks."""
    asked: list[str] = []
    for name in names:
        source = fleet.agents[name]._source

        async def collect(cids: Any, silence_s: float, name: str = name) -> Any:
            asked.append(name)
            raise AssertionError("the broker was asked")

        source.collect = collect  # type: ignore[method-assign]
    return asked


class Routes:
    """The kernel's view of a device that has a radio link and may get a wire."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        (proc / "net").mkdir(parents=True)
        self._file = proc / "net" / "route"
        self._file.write_text(HEAD + RADIO)

    def plug_in(self) -> None:
        """The wire is there, and is preferred."""
        self._file.write_text(HEAD + RADIO + WIRED)


async def until_told(fleet: SmallFleet, device: str, reason: str) -> None:
    """Wait until the operator is told why a device waits."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            said = await fleet.call("get", f"/devices/{device}/explain")
            if reason in json.dumps(said):
                return
            await asyncio.sleep(0.1)
