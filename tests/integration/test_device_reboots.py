"""A device that changes over by a reboot: the whole way by a real agent and an update module; the boots are played."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from device_client import service
from device_client.agent import runner
from device_client.installers.making import make_installer
from tests.device_client.installers.mender_bench import MODULE
from tests.integration.small_fleet import SmallFleet, make_package, make_tree, small_fleet, until


@dataclass
class Board:
    """A device whose boots are played: its boot loader starts what ``device/booted`` says."""

    fleet: SmallFleet
    modules: Path
    boot: str = "boot-1"

    @property
    def device(self) -> Path:
        """Its software, and what is booted of it."""
        return self.modules / "device"

    @property
    def asked(self) -> Path:
        """There once the agent has ordered a reboot."""
        return self.modules / "reboot-asked"

    async def reboots(self, *, loader_goes_back: bool = False) -> None:
        """Down as it is ordered, and up again."""
        await until(self.asked.exists, "the order to reboot")
        self.fleet.tasks["d1"].cancel()
        await asyncio.gather(self.fleet.tasks["d1"], return_exceptions=True)
        self.asked.unlink()
        if not loader_goes_back:
            shutil.copy(self.device / "software", self.device / "booted")
        self.boot = f"boot-{int(self.boot[5:]) + 1}"
        self.fleet.start_agents(["d1"])

    async def assignment(self) -> dict[str, Any]:
        """What the orchestrator knows of its part in the rollout."""
        (found,) = (await self.fleet.call("get", "/devices/d1"))["updates"]
        return dict(found)


@asynccontextmanager
async def _board(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Board]:
    async with small_fleet() as fleet:
        board = Board(fleet, fleet.place / "modules")
        for folder in ("device", "says"):
            (board.modules / folder).mkdir(parents=True)
        (board.modules / "ours").write_text(MODULE)
        (board.modules / "ours").chmod(0o755)
        (board.modules / "says" / "SupportsRollback").write_text("Yes\n")
        (board.modules / "says" / "NeedsArtifactReboot").write_text("Automatic\n")
        for name in ("software", "booted"):
            (board.device / name).write_bytes(b"old")
        monkeypatch.setattr(service, "make_installer", partial(make_installer, boot=lambda: board.boot))
        monkeypatch.setattr(runner, "boot_id", lambda: board.boot)
        factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0")
        new = await asyncio.to_thread(make_tree, fleet.place, "1.1.0", 50_000)
        await fleet.publish(await asyncio.to_thread(make_package, fleet.home, new, "1.1.0"))
        await fleet.enrol(
            ["d1"],
            factory,
            gates={"disk_reserve_bytes": 0},
            installer={
                "kind": "mender",
                "mender": {"module": "ours", "modules": str(board.modules)},
                "reboot": ["touch", str(board.asked)],
            },
        )
        fleet.start_agents(["d1"])
        await fleet.roll_out("r-1", "1.1.0", halt_count=1)
        yield board


async def test_the_new_version_proves_itself_after_the_reboot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal stands in ``activating`` over the reboot; it is the new version that is heard, and then it stays."""
    async with _board(monkeypatch) as board:
        await board.reboots()
        await board.fleet.until_state("r-1", "completed")
        found = await board.assignment()
        assert (found["state"], found["running_version"]) == ("succeeded", "1.1.0")
        tree = board.fleet.place / "tree-1.1.0"
        assert (board.device / "booted").read_bytes() == (tree / "data").read_bytes() + (tree / "version").read_bytes()


async def test_a_boot_loader_that_goes_back_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """It found the new version wanting before any agent ran: the device says that it runs the former one, and why."""
    async with _board(monkeypatch) as board:
        await board.reboots(loader_goes_back=True)
        await board.reboots()  # what the module put in place is taken back, and booted
        await board.fleet.until_state("r-1", "halted")
        found = await board.assignment()
        assert (found["state"], found["running_version"], found["code"]) == ("rolled_back", "1.0.0", "E_INSTALL")
        assert (board.device / "booted").read_bytes() == b"old"
        assert not board.asked.exists()
