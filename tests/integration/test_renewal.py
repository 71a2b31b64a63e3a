"""Certificates that last seconds: real agents renew them on the live session, keep a transfer going, and come back."""

import asyncio
from typing import Any

import pytest
from cryptography import x509

from device_client.config import DeviceHome
from device_client.identity_files import IdentityFiles
from device_client.new_identity import find
from tests.integration.small_fleet import SmallFleet, installed, make_package, make_tree, small_fleet, until

LIFE_S = 9


def serial(home: DeviceHome) -> str:
    """Of the certificate that a device uses."""
    pem = IdentityFiles(home).certificate.read_bytes()
    return f"{x509.load_pem_x509_certificate(pem).serial_number:x}"


async def known_serial(fleet: SmallFleet, device: str) -> str:
    """Of the certificate that the orchestrator knows."""
    found: dict[str, Any] = await fleet.call("get", f"/devices/{device}")
    return str(found["certificate_serial"])


async def test_an_agent_renews_its_certificate_before_it_runs_out() -> None:
    """Several lives pass: each renewal has new keys, the old folder goes, and reports hold all the while."""
    async with small_fleet(
        FLAGSHIP_CERTIFICATES__LIFE_S=str(LIFE_S), FLAGSHIP_CERTIFICATES__RENEW_PAUSE_S="0"
    ) as fleet:
        factory = make_tree(fleet.place, "1.0.0", 1000)
        await fleet.enrol(["d1"], factory)
        home = fleet.devices["d1"]
        seen, keys = {serial(home)}, {(home.identity / "device.key").read_bytes()}
        fleet.start_agents(["d1"])

        def renewed_twice() -> bool:
            seen.add(serial(home))
            keys.add((home.identity / "device.key").read_bytes())
            return len(seen) >= 3

        await until(renewed_twice, "two renewals", 40)
        assert len(keys) == 3
        async with asyncio.timeout(20):
            while await known_serial(fleet, "d1") != serial(home):
                await asyncio.sleep(0.1)
        assert not fleet.tasks["d1"].done()
        await until(lambda: fleet.agents["d1"]._reporter.is_connected, "it is connected", 10)
        await until(lambda: len(list(home.identities.iterdir())) == 1 or find(home) is not None, "the old folder goes")


@pytest.mark.slow
async def test_a_transfer_goes_on_over_renewals() -> None:
    """An update whose key was wrapped for the old content key is fetched, installed and committed under new ones."""
    async with small_fleet(
        FLAGSHIP_CERTIFICATES__LIFE_S=str(LIFE_S), FLAGSHIP_CERTIFICATES__RENEW_PAUSE_S="0"
    ) as fleet:
        factory = make_tree(fleet.place, "1.0.0", 1000)
        slow = {"rate_limit_bytes_s": 150_000}
        await fleet.enrol(["d1"], factory, download=slow)
        home = fleet.devices["d1"]
        await fleet.publish(make_package(fleet.home, make_tree(fleet.place, "1.1.0", 1_500_000), "1.1.0"))
        fleet.start_agents(["d1"])
        await fleet.roll_out("r-1", "1.1.0")
        update = fleet.agents["d1"].runner
        await until(lambda: update.update is not None and update.update.state == "downloading", "it downloads", 20)
        before = serial(home)
        await until(lambda: serial(home) != before, "a renewal while it downloads", 20)
        assert update.update is not None and update.update.state == "downloading"
        await fleet.until_state("r-1", "completed")
        assert installed(home) == "1.1.0"
        assert (await fleet.call("get", "/devices/d1"))["updates"][0]["state"] == "succeeded"
