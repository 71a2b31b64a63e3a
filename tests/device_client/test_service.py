"""The agent as a whole on its own home: what ends it and what must not. With a broker: tests/integration."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from device_client import identity, local_socket
from device_client.agent.journal import Journal, Update
from device_client.agents import run_agents
from device_client.config import DeviceHome, DeviceSettings, write
from device_client.errors import ConflictError
from device_client.gates.gate import GateContext
from device_client.identity_files import IdentityFiles
from device_client.inhibit_socket import hold
from device_client.installers.making import make_installer
from device_client.service import Agent
from protocol.clock import SystemClock
from protocol.directives import Grant, Offer, ReleaseRef
from protocol.enrolment import BrokerAddress
from protocol.states import Phase
from tests.certificates import Authority, free_ports
from tests.device_client.lab import open_below, until
from tests.protocol.trust.repository import FLEET, NOW, PRODUCT, Repository

TIMES = {"connect_backoff_s": 0.01, "connect_backoff_cap_s": 0.05, "gate_interval_s": 0.05}


def make_device(place: Path, name: str = "d1", **sections: Any) -> tuple[DeviceHome, DeviceSettings]:
    """An enrolled device that runs 1.0.0, whose broker nobody has started."""
    home = DeviceHome(place / name)
    device = {"id": name, "product": PRODUCT, "hardware": "rev-a"}
    settings = DeviceSettings.model_validate({"device": device, "timing": TIMES} | sections)
    identity.make_keys(home)
    files = IdentityFiles(home)
    Authority(files.ca, "test CA").issue(files.certificate, home.path / "unused.key", name)
    files.root.write_bytes(Repository().root_bytes())
    enrolment = identity.Enrolment(
        fleet=FLEET, device=name, brokers=[BrokerAddress(host="127.0.0.1", port=free_ports()[0])]
    )
    files.enrolment.write_text(enrolment.model_dump_json())
    factory = place / f"factory-{name}"
    factory.mkdir()
    (factory / "app").write_text("1.0.0")
    make_installer(home, settings).install_factory(factory, "1.0.0")
    return home, settings


@asynccontextmanager
async def running(*agents: Agent) -> AsyncIterator[None]:
    """Agents at work until the end of the block; they must still be there then, and end without an error."""
    task = asyncio.create_task(run_agents(agents))
    try:
        for agent in agents:
            await until(agent.home.socket.exists)
        yield
        assert not task.done(), "the agents ended"
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def _status(home: DeviceHome) -> dict[str, Any]:
    return await asyncio.to_thread(local_socket.request, home.socket, "status")


async def test_programs_inhibit_on_a_connection(place: Path) -> None:
    """The agent serves the door for them, and its gate asks who is there; past the end of the agent it is gone."""
    home, settings = make_device(place)
    agent = Agent(home, settings, SystemClock())
    async with running(agent):
        await until(home.inhibit_socket.is_socket)
        with await asyncio.to_thread(hold, home.inhibit_socket, "player", "a film"):
            gate = next(gate for gate in agent._keeper._gates if gate.name == "in_use")
            context = GateContext(Phase.INSTALL, "r", 0, settings.policy(), "ab" * 32)
            assert "player: a film" in str(await gate.judge(context))
    assert not home.inhibit_socket.exists()


async def test_without_a_broker_it_answers_people(place: Path) -> None:
    """A device that reaches nobody runs what it runs and says so; each attempt to connect has a higher session."""
    home, settings = make_device(place)
    async with running(Agent(home, settings, SystemClock())):
        status = await _status(home)
        assert (status["connected"], status["stale"], status["running"]) == (False, True, {"app": "1.0.0"})
        await until(lambda: home.session.exists() and int(home.session.read_text()) > 2)


async def test_a_second_agent_touches_nothing(place: Path) -> None:
    """Started by hand beside the service it is told so; journal, session and the first one's socket are left alone."""
    home, settings = make_device(place)
    first, second = Agent(home, settings, SystemClock()), Agent(home, settings, SystemClock())
    release = ReleaseRef(path="gateway/1.1.0/manifest", length=1, sha256="ab" * 32, counter=0)
    async with running(first):
        offer = Offer(
            fleet=FLEET, issued=NOW, rollout="r", expires=NOW, epoch=1, seq=1, device="d1", grant=Grant.DOWNLOAD,
            release=release,
        )  # fmt: skip
        Journal(home.journal).save(Update(offer=offer, nonce="asked-001"))
        before = home.journal.read_bytes()
        with pytest.raises(ConflictError, match="another agent runs on this home"):
            await second.run()
        assert second.runner.update is None
        assert home.journal.read_bytes() == before
        assert (await _status(home))["device"] == "d1"
    async with running(second):
        await until(lambda: second.runner.update is not None)


async def test_nobody_is_told_of_no_update_before_the_journal_was_read(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who approves at once after a restart is heard, however slow the disk is."""
    home, settings = make_device(place)
    release = ReleaseRef(path="gateway/1.1.0/manifest", length=1, sha256="ab" * 32, counter=0)
    offer = Offer(
        fleet=FLEET, issued=NOW, rollout="r", expires=NOW, epoch=1, seq=1, device="d1", grant=Grant.DOWNLOAD,
        release=release,
    )  # fmt: skip
    Journal(home.journal).save(Update(offer=offer, nonce="asked-001"))
    load = Journal.load

    def slowly(journal: Journal) -> Update | None:
        time.sleep(0.5)
        return load(journal)

    monkeypatch.setattr(Journal, "load", slowly)
    async with running(Agent(home, settings, SystemClock())):
        assert (await _status(home))["update"]["offer"]["rollout"] == "r"


async def test_a_session_that_cannot_be_raised(place: Path) -> None:
    """Without a higher session number there is no connection, but the agent stays: a full disk may have room again."""
    home, settings = make_device(place)
    blocked = home.state / ".session.new"
    blocked.mkdir()
    async with running(Agent(home, settings, SystemClock())):
        await asyncio.sleep(0.2)
        assert not home.session.exists()
        blocked.rmdir()
        await until(home.session.exists)


@pytest.mark.parametrize("spoil", ["trust", "current"])
async def test_a_damaged_home_does_not_end_it(place: Path, spoil: str) -> None:
    """What it cannot read it says; a person can still ask, and what runs is left as it is."""
    home, settings = make_device(place)
    if spoil == "trust":
        (home.trust / "tuf").write_bytes(b"in the way")
    else:
        home.current.unlink()
        home.current.mkdir()
    async with running(Agent(home, settings, SystemClock())):
        await until(lambda: home.session.exists() and int(home.session.read_text()) > 1)


async def test_many_agents_share_a_process(place: Path) -> None:
    """Each has its own home and socket; when they are told to stop they leave nothing open and no socket behind."""
    homes = [make_device(place, f"d{number}") for number in range(4)]
    for _ in range(2):
        agents = [Agent(home, settings, SystemClock()) for home, settings in homes]
        async with running(*agents):
            names = [(await _status(home))["device"] for home, _ in homes]
            assert names == [f"d{number}" for number in range(4)]
        await until(lambda: open_below(place) == [])
        assert not any(home.socket.exists() for home, _ in homes)


async def test_watching_goes_on_while_the_agent_restarts(place: Path) -> None:
    """Line by line without a terminal, a JSON object each second where that is asked; ended by SIGINT with 130."""
    home, settings = make_device(place)
    write(home, settings)
    words = [sys.executable, "-m", "device_client.cli", "status", "--watch", "--home", str(home.path), "-o", "json"]
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # who runs tests in the background ignores it
    watch = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE, preexec_fn=heeds)
    assert watch.stdout
    async with asyncio.timeout(20):
        assert "no agent answers" in json.loads(await watch.stdout.readline())["error"]
        async with running(Agent(home, settings, SystemClock())):
            while "error" in (status := json.loads(await watch.stdout.readline())):
                pass
            assert status["running"] == {"app": "1.0.0"}
        watch.send_signal(signal.SIGINT)
        assert await watch.wait() == 130


async def test_damage_is_shown_while_it_runs(place: Path) -> None:
    """The agent compares what runs by itself; what it found stands in the status, and no longer when it is mended."""
    home, settings = make_device(place, installer={"check_interval_s": 0.05})
    (home.current / "app").write_text("1.0.X")
    async with running(Agent(home, settings, SystemClock())), asyncio.timeout(10):
        while "file 'app'" not in (await _status(home))["integrity"]["fault"]:
            await asyncio.sleep(0.05)
        assert "E_POSTINSTALL" in (await _status(home))["refused"]
        (home.current / "app").write_text("1.0.0")
        while (await _status(home))["integrity"]["fault"]:
            await asyncio.sleep(0.05)
