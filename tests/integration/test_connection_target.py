"""The signed way to the fleet: two brokers and a CA rollover on loopback, with a real agent."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from device_client import connection_sets
from device_client.identity_files import IdentityFiles
from orchestrator.cli.main import main as flagship
from orchestrator.config import Home, Settings
from orchestrator.delivery.broker import ManagedBroker
from orchestrator.fleet.authority import create_authority, issue_server, load_authority
from orchestrator.fleet.crls import write_crl
from orchestrator.publisher.working_copy import current_files
from orchestrator.publisher.workspace import Workspace
from orchestrator.releases.package_trust import store_trust
from tests.certificates import free_ports
from tests.integration.small_fleet import SmallFleet, make_tree, small_fleet, until

QUICK = {"FLAGSHIP_TIMING__TIMESTAMP_RENEW_S": "2"}


@contextlib.asynccontextmanager
async def second_broker(fleet: SmallFleet) -> AsyncIterator[tuple[Home, Settings]]:
    """A broker whose certificate is by a new CA, and which takes devices of the old CA and of the new one."""
    home = Home(fleet.place / "second")
    (device_port, service_port), broker = free_ports(), fleet.settings.broker
    await asyncio.to_thread(create_authority, home.ca, "new-ca")
    authority = await asyncio.to_thread(create_authority, home.path / "issuing", "devices-ca")
    issue_server(authority, home.tls, "broker", ["127.0.0.1"])
    both = (home.path / "issuing" / "devices-ca.pem").read_text() + fleet.home.devices_ca.read_text()
    home.devices_ca.write_text(both)
    shutil.copy(fleet.home.services_ca, home.services_ca)
    shutil.copy(fleet.home.services_crl, home.services_crl)
    former = load_authority(fleet.home.ca, "devices-ca")
    write_crl(home.devices_crl, authority, {}, datetime.now(UTC), others=[former])
    for name in ("orch-delivery", "orch-ingest"):
        for path in fleet.home.certificate(name):
            shutil.copy(path, home.tls / path.name)
    changes = {"device_port": device_port, "service_port": service_port, "enrol_port": None, "name": "second"}
    settings = fleet.settings.model_copy(update={"broker": broker.model_copy(update=changes)})
    running = asyncio.create_task(ManagedBroker(home, settings).run())
    manager = ManagedBroker(home, settings)
    try:
        await manager.ready(10)
        yield home, settings
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def sign_and_publish(fleet: SmallFleet, port: int, ca: Path) -> None:
    """Sign a connection with the fleet's offline keys, and hand the metadata to serve."""
    words = ["trust", "connection", "--broker", f"127.0.0.1:{port}", "--ca", ca, "--home", fleet.home.path]
    assert await asyncio.to_thread(flagship, [str(word) for word in words]) == 0
    files = await asyncio.to_thread(lambda: current_files(Workspace(fleet.home.publisher).load().metadata))
    known = {path.name for path in fleet.home.trust.iterdir()}
    await asyncio.to_thread(store_trust, fleet.home.trust, {n: d for n, d in files.items() if n not in known})


@pytest.mark.slow
async def test_devices_move_to_a_new_broker_and_a_new_ca() -> None:
    """A way that does not connect is tried and left; one that does takes the old one's place, for restarts too."""
    async with small_fleet(**QUICK) as fleet, second_broker(fleet) as (home, settings):
        await fleet.enrol(["d1"], make_tree(fleet.place, "1.0.0", 1000), broker={"timeout_s": 2})
        device = fleet.devices["d1"]
        fleet.start_agents(["d1"])
        agent = fleet.agents["d1"]
        await until(lambda: agent._reporter.is_connected, "it is connected")
        before = int(device.session.read_text())

        nowhere, _ = free_ports()
        await sign_and_publish(fleet, nowhere, fleet.home.devices_ca)
        await until(lambda: connection_sets.on_trial(device) is not None, "a way is on trial", 30)
        first = connection_sets.on_trial(device)
        tried = before + 2  # the new way, then the old one again
        await until(lambda: int(device.session.read_text()) >= tried, "it tries the new way and the old one", 30)
        await until(lambda: agent._reporter.is_connected, "it comes back by the old way", 30)
        assert connection_sets.present(device).ca == IdentityFiles(device).ca

        new_ca = home.path / "issuing" / "devices-ca.pem"
        await sign_and_publish(fleet, settings.broker.device_port, new_ca)
        await until(lambda: connection_sets.present(device).ca.read_text() == new_ca.read_text(), "it moved", 30)
        assert first is not None and not first.ca.exists()
        assert connection_sets.on_trial(device) is None
        await until(lambda: agent._reporter.is_connected, "it is connected to the new broker", 30)
        assert len(x509.load_pem_x509_certificates(connection_sets.present(device).ca.read_bytes())) == 1

        fleet.tasks["d1"].cancel()
        await asyncio.gather(fleet.tasks["d1"], return_exceptions=True)
        fleet.start_agents(["d1"])
        await until(lambda: fleet.agents["d1"]._reporter.is_connected, "it is connected after a restart", 30)
