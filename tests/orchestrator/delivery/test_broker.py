"""The child process: what it says when it cannot start, that it comes back, that it ends with us."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import textwrap
from pathlib import Path

import pytest

from orchestrator.config import Home, Settings
from orchestrator.config_brokers import BrokerSettings
from orchestrator.delivery import broker as broker_module
from orchestrator.delivery.broker import ManagedBroker
from orchestrator.errors import ConflictError, OperationError, UnreachableError
from tests.certificates import free_ports
from tests.orchestrator.delivery.lab import DEADLINE_S, Lab, make_certificates, until


def _home(path: Path) -> tuple[Home, Settings]:
    home = Home(path)
    home.ca.mkdir()
    make_certificates(home)
    device_port, service_port = free_ports()
    return home, Settings(broker=BrokerSettings(device_port=device_port, service_port=service_port))


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


async def test_a_missing_program_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without mosquitto the message says how to install it."""
    home, settings = _home(tmp_path)
    monkeypatch.setattr("shutil.which", lambda name, path="": None)
    with pytest.raises(UnreachableError, match="apt-get install mosquitto"):
        await ManagedBroker(home, settings).run()


async def test_a_port_in_use_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that another program holds is named."""
    home, settings = _home(tmp_path)
    monkeypatch.setattr(broker_module, "PORT_WAIT_S", 0.1)
    with socket.socket() as other:
        other.bind(("127.0.0.1", settings.broker.device_port))
        other.listen()
        with pytest.raises(ConflictError, match=rf":{settings.broker.device_port}: "):
            await ManagedBroker(home, settings).run()


async def test_a_refused_configuration_is_told_in_the_brokers_own_words(tmp_path: Path) -> None:
    """When mosquitto does not start, its error line is in the message."""
    home, settings = _home(tmp_path)
    home.certificate("broker")[1].write_text("not a key")
    with pytest.raises(OperationError, match="mosquitto ended with code"):
        async with asyncio.timeout(DEADLINE_S):
            await ManagedBroker(home, settings).run()


async def test_an_unreachable_broker_is_one_sentence(tmp_path: Path) -> None:
    """Readiness has a deadline."""
    home, settings = _home(tmp_path)
    with pytest.raises(UnreachableError, match=r"not ready after 0\.3 s"):
        await ManagedBroker(home, settings).ready(0.3)


async def test_a_broker_that_dies_is_started_again(lab: Lab) -> None:
    """Killed, it is back under another pid."""
    first = lab.broker.process
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)

    async def back() -> bool:
        return lab.broker.process is not first

    await until(back, "another process")
    await lab.broker.ready(DEADLINE_S)


async def test_a_broker_ends_when_it_is_no_longer_run(tmp_path: Path) -> None:
    """After cancelling ``run`` the process is gone."""
    home, settings = _home(tmp_path)
    broker = ManagedBroker(home, settings)
    task = asyncio.create_task(broker.run())
    await broker.ready(DEADLINE_S)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert broker.process is not None and broker.process.returncode is not None


async def test_a_broker_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    """SIGKILL of the program that runs it ends the broker too."""
    home, settings = _home(tmp_path)
    program = textwrap.dedent(
        f"""
        import asyncio
        from pathlib import Path
        from orchestrator.config import Home, Settings
        from orchestrator.config_brokers import BrokerSettings
        from orchestrator.delivery.broker import ManagedBroker
        broker = ManagedBroker(
            Home(Path({str(tmp_path)!r})),
            Settings(broker=BrokerSettings(
                device_port={settings.broker.device_port}, service_port={settings.broker.service_port})),
        )
        async def main():
            task = asyncio.create_task(broker.run())
            await broker.ready()
            print("pid", broker.process.pid, flush=True)
            await task
        asyncio.run(main())
        """
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    line = b""
    while not line.startswith(b"pid "):
        line = await asyncio.wait_for(parent.stdout.readline(), DEADLINE_S)
        assert line, "the program ended early"
    parent.kill()
    await parent.wait()

    async def gone() -> bool:
        return not _runs(int(line.split()[1]))

    await until(gone, "the broker has ended")
    assert home.broker.is_dir()
