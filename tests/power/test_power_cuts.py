"""Power cuts at every change of the disk, in a whole update by the real agent; after each it starts again.

What must hold: the active version is wholly the old or wholly the new one at once after the cut; the journal opens; the
update comes to an outcome, and to success, for nothing but power failed; what had been reported a success stays one.
"""

import asyncio
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from device_client.agent.journal import Journal
from device_client.config import DeviceHome
from device_client.trees import Tree, read_tree
from orchestrator.demo.processes import command
from protocol.states import State
from tests.integration.small_fleet import make_package, make_tree, short_place, small_fleet
from tests.power.disk import Cut, Disk, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs")
SAMPLED = 1
TIMES = {"gate_interval_s": 0.05, "connect_backoff_s": 5, "connect_backoff_cap_s": 60}


@dataclass
class Bench:
    """A device before its update, the stick that brings it, and a disk to do it on."""

    disk: Disk
    template: Path
    old: Tree
    new: Tree

    @property
    def home(self) -> DeviceHome:
        """The device's, on the disk."""
        return DeviceHome(self.disk.root / "home")

    @property
    def argv(self) -> list[str]:
        """The update."""
        return [sys.executable, "-m", "tests.power.whole_update", str(self.home.path)]

    def changes(self) -> int:
        """How many changes a whole update makes when nothing is cut."""
        with self.disk.fresh(self.template):
            ran = self.disk.run(self.argv)
            assert "outcome: succeeded" in ran.output, ran.output
            assert read_tree(self.home.current.resolve()) == self.new
        return ran.changes

    def is_cut(self, at: int, cut: Cut) -> bool:
        """Cut, look at what is there, start again; whether the run had come so far. Raises AssertionError."""
        with self.disk.fresh(self.template):
            ran = self.disk.run(self.argv, at=at, cut=cut)
            if ran.code == 0:
                return False
            assert ran.code == -9, ran.output
            self.disk.power_again()
            where = f"{cut.name} before change {at}"
            active = read_tree(self.home.current.resolve())
            assert active in (self.old, self.new), f"{where}: the active version is a mixture"
            journal = Journal(self.home.journal).load()
            told = journal is not None and journal.state is State.SUCCEEDED
            assert not told or active == self.new, f"{where}: a success whose version does not run"
            again = self.disk.run(self.argv)
            assert "outcome: succeeded" in again.output, f"{where}: {again.output}"
            assert read_tree(self.home.current.resolve()) == self.new, f"{where}: another version runs at the end"
            former = json.loads(self.home.installer.read_text())
            assert set(former) == {"former"}, f"{where}: {former}"
        return True


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """Made once: a fleet, a device enrolled in it, a stick for it; the fleet is gone then."""
    with short_place() as place:
        yield asyncio.run(_prepare(place))


async def _prepare(place: Path) -> Bench:
    async with small_fleet() as fleet:
        old = await asyncio.to_thread(make_tree, fleet.place, "1.0.0", 30_000)
        new = await asyncio.to_thread(make_tree, fleet.place, "1.1.0", 30_000)
        await fleet.publish(await asyncio.to_thread(make_package, fleet.home, new, "1.1.0"))
        stick = place / "stick"
        await fleet.enrol(
            ["d1"], old, gates={"disk_reserve_bytes": 0, "allow_offline": True}, timing=TIMES,
            media={"directories": [str(stick)], "interval_s": 0.1},
        )  # fmt: skip
        await fleet.roll_out("r-1", "1.1.0")
        await command(
            "flagship", "rollout", "offline", "r-1", "d1", "--to", stick, "--until", "30d", "--home", fleet.home.path
        )
        template = place / "template"
        await asyncio.to_thread(fleet.devices["d1"].path.rename, template)
        return Bench(Disk(place), template, read_tree((template / "current").resolve()), read_tree(new))


@pytest.fixture(scope="module")
def total(bench: Bench) -> int:
    """Changes of the disk that a whole update makes."""
    return bench.changes()


@pytest.mark.parametrize("cut", list(Cut))
def test_a_cut_here_and_there(bench: Bench, total: int, cut: Cut) -> None:
    """A few places, the same each time; ``make test-all`` takes every one."""
    for at in random.Random(int(cut)).sample(range(1, total + 1), SAMPLED):
        assert bench.is_cut(at, cut)


@pytest.mark.slow
@pytest.mark.parametrize("cut", list(Cut))
def test_cuts_everywhere(bench: Bench, total: int, cut: Cut) -> None:
    """Every change of the whole update."""
    at = 1
    while bench.is_cut(at, cut):
        at += 1
    assert at > total // 2


def test_a_missing_sync_is_caught(bench: Bench) -> None:
    """A test of these: an agent whose syncs do nothing loses what it said it had, or mixes two versions."""
    with bench.disk.fresh(bench.template):
        ran = bench.disk.run(bench.argv, drop_syncs=True)
        assert "outcome: succeeded" in ran.output, ran.output
        total = ran.changes
    with bench.disk.fresh(bench.template):
        ran = bench.disk.run(bench.argv, at=total - 2, cut=Cut.DATA, drop_syncs=True)
        assert ran.code == -9, ran.output
        bench.disk.power_again()
        with pytest.raises((AssertionError, OSError, ValueError)):
            assert read_tree(bench.home.current.resolve()) in (bench.old, bench.new)
