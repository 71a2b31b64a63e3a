"""The watch over a version on trial: it reboots a device whose agent is gone, and no other."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from device_client.agent.journal import Journal, Update
from device_client.cli import main
from device_client.config import write
from device_client.errors import DeviceError
from device_client.service import Agent
from device_client.systemd.watchdog import Sight, look, watch
from protocol.clock import SystemClock
from protocol.states import State
from tests.device_client.lab import Lab
from tests.device_client.test_service import make_device, running

LIMIT_S = 150.0


@dataclass
class Uptime:
    """Seconds since a boot."""

    s: float = 1000.0

    def __call__(self) -> float:
        return self.s


class Bench:
    """A device whose reboot leaves a file behind."""

    def __init__(self, place: Path, *reboot: str) -> None:
        self.rebooted = place / "rebooted"
        reboot = reboot or ("/bin/sh", "-c", f"echo once >> {self.rebooted}")
        timing = {"verify_timeout_s": 100, "network_deadline_s": 50}
        self.lab = Lab(place / "home", {"installer": {"reboot": list(reboot)}, "timing": timing})
        self.release = self.lab.publish()
        self.uptime = Uptime()

    def stands_in(self, state: State, **changes: Any) -> None:
        """What the journal says."""
        offer = self.lab.offer(self.release, **changes)
        Journal(self.lab.home.journal).save(Update(offer=offer, state=state, nonce="asked-001"))

    async def after(self, seconds: float) -> str:
        """What one look comes to, so much later."""
        self.uptime.s += seconds
        return await watch(self.lab.home, self.lab.settings, self.uptime)


@pytest.fixture
def bench(place: Path) -> Bench:
    """On trial."""
    found = Bench(place)
    found.stands_in(State.VERIFYING)
    return found


async def test_a_trial_that_does_not_end_reboots(bench: Bench) -> None:
    """Not before both deadlines together have passed since it was seen first; activating counts with verifying."""
    bench.stands_in(State.ACTIVATING)
    assert "0:00:00, at most 0:02:30" in await bench.after(0)
    bench.stands_in(State.VERIFYING)
    assert "at most" in await bench.after(LIMIT_S - 1)
    assert not bench.rebooted.exists()
    assert "rebooting" in await bench.after(1)
    assert bench.rebooted.read_text() == "once\n"


async def test_other_places_do_not(bench: Bench) -> None:
    """What waits, installs or is over is not on trial, and the time of a later trial begins anew."""
    for state in set(State) - {State.ACTIVATING, State.VERIFYING}:
        await bench.after(0)
        bench.stands_in(state)
        assert await bench.after(10 * LIMIT_S) == "no update is on trial"
        bench.stands_in(State.VERIFYING)
        assert "0:00:00" in await bench.after(0)
    assert not bench.rebooted.exists()


async def test_each_boot_and_each_attempt_has_its_time(bench: Bench) -> None:
    """A device is not rebooted again at once, nor for what another attempt took."""
    await bench.after(0)
    note = bench.lab.home.state / "watchdog.json"
    seen = Sight.model_validate_json(note.read_bytes())
    note.write_text(seen.model_copy(update={"boot": "another"}).model_dump_json())
    assert "0:00:00" in await bench.after(10 * LIMIT_S)
    bench.stands_in(State.VERIFYING, attempt=2)
    assert "0:00:00" in await bench.after(10 * LIMIT_S)
    assert not bench.rebooted.exists()


def test_a_clock_that_went_back_begins_anew(bench: Bench) -> None:
    """A note from the future of this boot is none."""
    update = Journal(bench.lab.home.journal).load()
    seen = look(update, None, "boot", 500)
    assert look(update, seen, "boot", 600) == seen
    assert look(update, seen, "boot", 400) == Sight(rollout="r", attempt=1, boot="boot", since_s=400)


@pytest.mark.parametrize("spoil", ["journal", "note", "both gone"])
async def test_what_is_damaged_reboots_nobody(bench: Bench, spoil: str) -> None:
    """The agent deals with a damaged journal; a damaged note begins the time anew."""
    await bench.after(0)
    note = bench.lab.home.state / "watchdog.json"
    if spoil == "note":
        note.write_bytes(b"{")
    elif spoil == "journal":
        bench.lab.home.journal.write_bytes(b"{")
    else:
        note.unlink()
        bench.lab.home.journal.unlink()
    assert ("0:00:00" if spoil == "note" else "no update") in await bench.after(10 * LIMIT_S)
    assert not bench.rebooted.exists()
    assert bench.lab.home.journal.exists() is (spoil != "both gone"), "it is not moved aside either"


async def test_an_agent_that_answers_ends_its_trial_itself(place: Path) -> None:
    """However long it takes: it has deadlines of its own."""
    home, settings = make_device(place, timing={"verify_timeout_s": 100, "network_deadline_s": 50})
    bench = Bench(place)
    async with running(Agent(home, settings, SystemClock())):
        bench.stands_in(State.VERIFYING)
        home.state.joinpath("journal.json").write_bytes(bench.lab.home.journal.read_bytes())
        settings = settings.model_copy(update={"installer": bench.lab.settings.installer})
        assert "at most" in await watch(home, settings, bench.uptime)
        bench.uptime.s += LIMIT_S
        assert "its agent answers" in await watch(home, settings, bench.uptime)
    assert not bench.rebooted.exists()
    assert "rebooting" in await watch(home, settings, bench.uptime)


async def test_a_reboot_that_cannot_be_ordered_is_said(place: Path) -> None:
    """With what the program wrote, and where it is set."""
    bench = Bench(place, "/bin/sh", "-c", "echo Access denied; exit 1")
    bench.stands_in(State.VERIFYING)
    await bench.after(0)
    with pytest.raises(DeviceError, match=r"Access denied.*\[installer\] reboot"):
        await bench.after(LIMIT_S)


def test_the_command(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 where there is nothing to do, 3 where there is no device."""
    home, settings = make_device(place)
    home.create()
    write(home, settings)
    assert main(["watchdog", "--config", str(home.path)]) == 0
    assert capsys.readouterr().out == "no update is on trial\n"
    assert main(["watchdog", "--config", str(place / "nowhere")]) == 3
