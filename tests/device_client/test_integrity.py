"""Whether what runs is intact: checked when it is time, never while it is changed, told until it is mended."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from device_client.agent.journal import Journal, Update
from device_client.agent.runner import Runner
from device_client.background import LOWEST_PRIORITY, in_background
from device_client.integrity import FIRST_S, RETRY_S, Integrity
from device_client.refusals import Refusals
from protocol.errors import ErrorCode
from protocol.states import State
from tests.device_client.lab import Lab, until

ROOT = Path(__file__).parents[2]
INTERVAL_S = 1000.0


class Bench:
    """A device that runs 1.0.0, and who checks it."""

    def __init__(self, path: Path, interval_s: float = INTERVAL_S) -> None:
        self.lab = lab = Lab(path)
        lab.factory()
        lab.refresh()
        self.runner = Runner(Journal(lab.home.journal), lab.settings.timing, lab.clock, Random(1))
        self.refusals = Refusals(lab.clock)
        self.integrity = Integrity(lab.installer, self.runner, self.refusals, lab.verifier.clock, interval_s)

    @property
    def app(self) -> Path:
        """The running version's only file."""
        return self.lab.home.current / "app"

    async def after(self, seconds: float) -> dict[str, Any]:
        """What is known so much later."""
        self.lab.clock.advance(seconds)
        await self.integrity.tick()
        return self.integrity.standing()

    def reported(self) -> list[str]:
        """What the inventory says of it."""
        return [one.detail for one in self.refusals.report() if one.code is ErrorCode.POSTINSTALL]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Not yet checked."""
    return Bench(tmp_path / "home")


async def test_a_fault_is_told_until_it_is_mended(bench: Bench) -> None:
    """Some time after the start, then at the interval; the report names the file, and forgets it when it is well."""
    assert await bench.after(FIRST_S - 1) == {"checked_at": None, "fault": ""}
    bench.app.write_text("1.0.X")
    fault = (await bench.after(1))["fault"]
    assert "file 'app': expected sha256" in fault
    assert bench.reported() == [fault]
    bench.app.write_text("1.0.0")
    assert (await bench.after(INTERVAL_S - 1))["fault"] == fault
    standing = await bench.after(1)
    assert standing["fault"] == ""
    assert standing["checked_at"]
    assert bench.reported() == []


async def test_another_fault_takes_the_place_of_the_first(bench: Bench) -> None:
    """The newest is told; the same again is no news."""
    bench.app.write_text("1.0.X")
    await bench.after(FIRST_S)
    changes = bench.refusals.changes
    await bench.after(INTERVAL_S)
    assert bench.refusals.changes == changes
    bench.app.unlink()
    await bench.after(INTERVAL_S)
    (told,) = bench.reported()
    assert "file 'app' is missing" in told


@pytest.mark.parametrize(
    "state",
    [State.INSTALLING, State.INSTALLED, State.ACTIVATING, State.VERIFYING, State.COMMITTING, State.ROLLING_BACK],
)
async def test_what_is_being_changed_is_not_checked(
    bench: Bench, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From installing to committing it is not even read; as soon as that is over it is."""
    bench.app.write_text("1.0.X")
    read = []
    fault = bench.lab.installer.fault

    def counted() -> str:
        read.append(1)
        return fault()

    monkeypatch.setattr(bench.lab.installer, "fault", counted)
    update = Update(offer=bench.lab.offer(bench.lab.publish()), state=state)
    bench.runner.update = update
    assert (await bench.after(FIRST_S))["checked_at"] is None
    assert not read
    bench.runner.update = update.model_copy(update={"state": State.SUCCEEDED})
    assert (await bench.after(0))["fault"]


async def test_a_change_in_the_middle_spoils_the_result(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read while an update began may be of two versions: nothing is told, and it is checked again."""

    def fault() -> str:
        bench.runner.update = Update(offer=bench.lab.offer(bench.lab.publish()), state=State.INSTALLING)
        return "half of two"

    monkeypatch.setattr(bench.lab.installer, "fault", fault)
    assert await bench.after(FIRST_S) == {"checked_at": None, "fault": ""}
    assert bench.reported() == []


async def test_a_disk_that_does_not_answer_is_asked_again(bench: Bench) -> None:
    """What cannot be read is no fault of what runs, and ends nobody."""
    target = bench.lab.home.current.readlink()
    bench.lab.home.current.unlink()
    bench.lab.home.current.mkdir()
    assert (await bench.after(FIRST_S))["checked_at"] is None
    bench.lab.home.current.rmdir()
    bench.lab.home.current.symlink_to(target)
    assert (await bench.after(RETRY_S - 1))["checked_at"] is None
    assert (await bench.after(1))["checked_at"]


async def test_never_is_never(tmp_path: Path) -> None:
    """Interval 0 ends the task at once."""
    never = Bench(tmp_path / "home", 0)
    async with asyncio.timeout(5):
        await never.integrity.run()
    assert (await never.after(10 * FIRST_S))["checked_at"] is None


async def test_it_runs_by_itself(tmp_path: Path) -> None:
    """The task checks without being asked."""
    often = Bench(tmp_path / "home", 0.01)
    async with _running(often.integrity):
        often.lab.clock.advance(1)
        await until(lambda: often.integrity.standing()["checked_at"] is not None)


async def test_it_hurries_nobody() -> None:
    """The thread has the lowest priority, this one keeps its own; a failure is raised where it is awaited."""
    mine = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert await in_background(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())) == LOWEST_PRIORITY
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == mine
    with pytest.raises(ZeroDivisionError):
        await in_background(lambda: 1 // 0)


async def test_nobody_waits_for_it_at_the_end() -> None:
    """Who is told to stop stops, however long the disk takes."""
    go_on = threading.Event()
    work = asyncio.create_task(in_background(go_on.wait))
    await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(work, 1)
    go_on.set()
    code = (
        "import asyncio, time; from device_client.background import in_background\n"
        "async def main(): asyncio.create_task(in_background(lambda: time.sleep(60))); await asyncio.sleep(0.1)\n"
        "asyncio.run(main())"
    )
    ended = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=ROOT)
    assert await asyncio.wait_for(ended.wait(), 20) == 0


@asynccontextmanager
async def _running(integrity: Integrity) -> AsyncIterator[None]:
    task = asyncio.create_task(integrity.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
