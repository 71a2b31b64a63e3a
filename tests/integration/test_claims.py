"""Devices that come with nothing but a claim folder: the real broker, serve, both command lines."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from device_client import cli as device_cli
from device_client import identity
from device_client.config import DeviceHome, load, write
from orchestrator.cli.main import main as flagship
from tests.integration.small_fleet import HARDWARE, PRODUCT, SmallFleet, make_tree, small_fleet, until

LIST = "serial,device,product,hardware,label.site\n{rows}"


async def flagship_says(*words: Any) -> int:
    """Run ``flagship`` in a thread; its exit code."""
    return await asyncio.to_thread(flagship, [str(word) for word in words])


async def make_claim(fleet: SmallFleet, name: str, *rows: str, options: tuple[str, ...] = ()) -> Path:
    """A claim folder for these serials."""
    serials, place = fleet.place / f"{name}.csv", fleet.place / f"claim-{name}"
    serials.write_text(LIST.format(rows="\n".join(rows)))
    listed = ("--serials", serials) if rows else ()
    await fleet.call("get", "/claims")  # until serve answers
    code = await flagship_says(
        "device", "claim", "create", name, *listed, "-o", place, "--home", fleet.home.path, *options
    )
    assert code == 0
    return place


async def enrol(fleet: SmallFleet, home: str, claim: Path, serial: str, *options: str, hardware: str = HARDWARE) -> int:
    """``flagship-device enrol --claim`` in a thread; its exit code."""
    words = ["enrol", "--home", str(fleet.place / home), "--claim", str(claim), "--serial", serial]
    words += ["--product", PRODUCT, "--hardware", hardware, "--timeout", "20", *options]
    return await asyncio.to_thread(device_cli.main, words)


async def test_a_device_comes_with_a_claim(capsys: pytest.CaptureFixture[str]) -> None:
    """Listed serials get the identity that the inventory has for them; a second device with a serial is told so."""
    async with small_fleet() as fleet:
        claim = await make_claim(
            fleet, "line-1", f"SN:1,cam-1,{PRODUCT},{HARDWARE},ulm", f"SN:2,cam-2,{PRODUCT},{HARDWARE},"
        )
        factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0", 1000)
        installed = ("--installed", str(factory), "--version", "1.0.0")
        assert await enrol(fleet, "a", claim, "SN:1", *installed) == 0
        assert (fleet.place / "a" / "current" / "version").read_text() == "1.0.0\n"
        home, settings = load(fleet.place / "a")
        assert (settings.device.id, settings.device.serial) == ("cam-1", "SN:1")
        certificate = x509.load_pem_x509_certificate((home.identity / "certificate.pem").read_bytes())
        assert certificate.subject.rfc4514_string() == "CN=cam-1"
        found = await fleet.call("get", "/devices/cam-1")
        assert (found["product"], found["labels"]) == (PRODUCT, {"site": "ulm"})

        capsys.readouterr()
        assert await enrol(fleet, "thief", claim, "SN:1") == 5
        assert "a device with other keys has it" in capsys.readouterr().err
        assert await enrol(fleet, "other", claim, "SN:3") == 5
        assert "serial SN:3: not listed under claim.line-1" in capsys.readouterr().err
        assert await enrol(fleet, "wrong", claim, "SN:2", hardware="rev-z") == 5
        assert "the inventory has gateway on rev-a" in capsys.readouterr().err

        fleet.devices["cam-1"] = home
        fleet.start_agents(["cam-1"])
        await until(lambda: fleet.agents["cam-1"]._reporter.is_connected, "the agent connects")
        async with asyncio.timeout(20):
            while not (await fleet.call("get", "/devices/cam-1"))["online"]:
                await asyncio.sleep(0.05)
        assert DeviceHome(fleet.place / "thief").config.exists() is False
        assert identity.load_enrolment(home).fleet == fleet.settings.fleet


@pytest.mark.slow
async def test_a_person_approves(capsys: pytest.CaptureFixture[str]) -> None:
    """Under --any a device waits until a person says yes, or is told why not; a revoked claim is shut."""
    async with small_fleet(FLAGSHIP_CERTIFICATES__PENDING_RETRY_S="0.5") as fleet:
        claim = await make_claim(fleet, "field", options=("--any", "--product", PRODUCT, "--hardware", HARDWARE))
        asking = [asyncio.create_task(enrol(fleet, name, claim, name)) for name in ("cam-8", "cam-9")]
        waiting = await pending(fleet, 2)
        at = ("--home", fleet.home.path)
        assert await flagship_says("device", "approve", waiting["cam-8"], *at) == 0
        assert await flagship_says("device", "reject", waiting["cam-9"], "--reason", "not ours", *at) == 0
        assert await asyncio.gather(*asking) == [0, 5]
        assert "not ours" in capsys.readouterr().err
        assert load(fleet.place / "cam-8")[1].device.id == "cam-8"
        assert await flagship_says("device", "approve", waiting["cam-8"], *at) == 5
        assert await flagship_says("device", "claim", "revoke", "field", *at) == 0
        assert await enrol(fleet, "late", claim, "cam-10") == 5
        assert "claim.field: is not open here" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("automatic", [True, False])
async def test_a_device_comes_back_after_its_certificate_expired(automatic: bool) -> None:
    """An agent that was off while its certificate ran out returns by its claim folder and its former key."""
    life = {"FLAGSHIP_CERTIFICATES__LIFE_S": "4", "FLAGSHIP_CERTIFICATES__PENDING_RETRY_S": "0.5"}
    async with small_fleet(**life, FLAGSHIP_CERTIFICATES__AUTOMATIC_RETURN=str(automatic)) as fleet:
        claim = await make_claim(fleet, "line-1", f"SN-1,cam-1,{PRODUCT},{HARDWARE},ulm")
        assert await enrol(fleet, "a", claim, "SN-1") == 0
        home, settings = load(fleet.place / "a")
        broker = settings.broker.model_copy(update={"timeout_s": 1.0})  # TLS 1.3 says late what it refuses
        write(home, settings.model_copy(update={"broker": broker}))
        fleet.devices["cam-1"] = home
        first = identity.certificate_expiry(home)
        await until(lambda: first <= datetime.now(UTC), "its certificate runs out", 20)
        fleet.start_agents(["cam-1"])
        if not automatic:
            waiting = await pending(fleet, 1)
            assert await flagship_says("device", "approve", waiting["cam-1"], "--home", fleet.home.path) == 0
        await until(lambda: identity.certificate_expiry(home) > first, "it has a new certificate", 20)
        await until(lambda: fleet.agents["cam-1"]._reporter.is_connected, "it is connected", 20)
        async with asyncio.timeout(20):
            while not (await fleet.call("get", "/devices/cam-1"))["online"]:
                await asyncio.sleep(0.05)


async def pending(fleet: SmallFleet, count: int) -> dict[str, str]:
    """Request ids by device, when so many wait."""
    async with asyncio.timeout(30):
        while True:
            found = (await fleet.call("get", "/enrolments"))["items"]
            if len(found) == count:
                return {item["device"]: item["id"] for item in found}
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_devices_of_one_claim_take_turns() -> None:
    """They end one another's sessions, and all of them come in all the same."""
    names = [f"cam-{number}" for number in range(8)]
    async with small_fleet() as fleet:
        claim = await make_claim(fleet, "line-1", *(f"{name},{name},{PRODUCT},{HARDWARE},ulm" for name in names))
        words = ("--timeout", "60")
        assert await asyncio.gather(*(enrol(fleet, name, claim, name, *words) for name in names)) == [0] * len(names)
        assert len((await fleet.call("get", "/devices"))["items"]) == len(names)
