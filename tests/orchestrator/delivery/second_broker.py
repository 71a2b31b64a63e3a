"""A mosquitto beside the managed one, from the generated configuration: started, frozen, killed, put back in time."""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
from pathlib import Path

from orchestrator.config import Home
from orchestrator.config_brokers import FurtherBroker
from orchestrator.delivery.broker import find_mosquitto
from orchestrator.delivery.broker_config import CONFIG_FILE, BrokerPlan, broker_files
from tests.certificates import free_ports

DEADLINE_S = 20.0
NAME = "second"


class SecondBroker:
    """Somebody else's broker: this class starts and stops it, ``serve`` does not."""

    def __init__(self, home: Home, directory: Path, fleet: str, ports: tuple[int, int] | None = None) -> None:
        self.directory = directory
        self.process: asyncio.subprocess.Process | None = None
        device_port, service_port = ports or free_ports()
        self.settings = FurtherBroker.model_validate(
            {"name": NAME, "device_port": device_port, "service_port": service_port}
        )
        certificate, key = home.certificate("broker")
        plan = BrokerPlan(
            fleet=fleet,
            directory=directory.resolve(),
            devices_ca=home.devices_ca.resolve(),
            devices_crl=home.devices_crl.resolve(),
            services_ca=home.services_ca.resolve(),
            services_crl=home.services_crl.resolve(),
            certificate=certificate.resolve(),
            key=key.resolve(),
            device_port=device_port,
            service_port=service_port,
            user=pwd.getpwuid(os.geteuid()).pw_name,
        )
        directory.mkdir()
        for name, text in broker_files(plan).items():
            (directory / name).write_text(text)
            (directory / name).chmod(0o600)

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        with (self.directory / "log").open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                find_mosquitto(), "-c", str(self.directory / CONFIG_FILE), stdout=output, stderr=output
            )
        async with asyncio.timeout(DEADLINE_S):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.settings.service_port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop it: with SIGTERM it saves what it retains, with SIGKILL it does not."""
        if self.process is not None and self.process.returncode is None:
            for one in (number, signal.SIGCONT):
                with contextlib.suppress(ProcessLookupError):
                    self.process.send_signal(one)
            async with asyncio.timeout(DEADLINE_S):
                await self.process.wait()

    def freeze(self) -> None:
        """It takes connections and bytes, as its kernel does, and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def keep_file(self) -> None:
        """Copy what a stopped broker saved."""
        shutil.copy(self.directory / "retained.db", self.directory / "kept.db")

    def put_file_back(self) -> None:
        """Let it be what it was at ``keep_file``."""
        shutil.copy(self.directory / "kept.db", self.directory / "retained.db")
