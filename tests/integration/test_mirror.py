"""Updates that come from elsewhere than the broker: the orchestrator's own listener over TLS, and an exported tree."""

import asyncio
from pathlib import Path
from typing import Any

from device_client.download.directory_source import DirectorySource
from orchestrator.cli.main import main as flagship
from tests.certificates import free_ports
from tests.device_client.download.mirror import source_of
from tests.integration.small_fleet import PRODUCT, SmallFleet, make_package, make_tree, small_fleet

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


async def test_the_listener_and_the_tree_have_the_same_chunks() -> None:
    """Every chunk and piece of a release, byte for byte, over TLS by the devices' CA and from the exported files."""
    port, _ = free_ports()
    async with small_fleet(FLAGSHIP_MIRROR__PORT=str(port)) as fleet:
        chunks = await publish(fleet)
        source = source_of(f"https://127.0.0.1:{port}", fleet.home.devices_ca)
        served = await source.collect(list(chunks), SILENCE_S)
        await source.release()
        assert {cid: len(data) for cid, data in served.chunks.items()} == chunks
        await export(fleet, fleet.place / "tree")
        exported = await DirectorySource(fleet.place / "tree").collect(list(chunks), SILENCE_S)
        assert exported == served
