"""Which sources there are, in what order, and how each is set up."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest

from device_client import connection_sets
from device_client.clock import FlooredClock
from device_client.config import DeviceHome, DeviceSettings
from device_client.download.sources import Collected
from device_client.identity_files import IdentityFiles
from device_client.source_list import SourceMaker, sections
from protocol.clock import SystemClock
from protocol.enrolment import BrokerAddress, ConnectionTarget, MirrorAddress
from tests.certificates import Authority
from tests.device_client.download.mirror import Mirror, serving, some_chunks
from tests.device_client.download.test_directory_source import medium
from tests.device_client.lab import Shelf

DEVICE = {"id": "d1", "product": "cam", "hardware": "rev-b"}
SIGNED = [MirrorAddress(url="https://m.example"), MirrorAddress(url="https://cdn.example", ca="system")]
BROKERS = [BrokerAddress(host="b.example", port=1)]


def settings(**download: Any) -> DeviceSettings:
    """A device with these sources."""
    return DeviceSettings.model_validate({"device": DEVICE, "download": download})


def maker(home: DeviceHome, found: DeviceSettings, shelf: Shelf | None = None) -> SourceMaker:
    """Makes sources for a home."""
    clock = FlooredClock(SystemClock())
    return SourceMaker(home, found, shelf or Shelf(), clock, Random(1))


def test_without_a_word_the_broker_and_then_what_the_fleet_signed() -> None:
    """In the order in which they were signed; nothing where nothing was."""
    found = sections(settings(), SIGNED)
    assert [(one.kind, one.url, one.ca) for one in found] == [
        ("mqtt", None, "fleet"),
        ("https", "https://m.example", "fleet"),
        ("https", "https://cdn.example", "system"),
    ]
    assert [one.kind for one in sections(settings(), [])] == ["mqtt"]


def test_the_owners_list_stands_alone() -> None:
    """Where device.toml names sources, no mirror comes in beside them."""
    own = settings(sources=[{"kind": "directory", "path": "/media/x"}, {"kind": "mqtt"}])
    assert [one.kind for one in sections(own, SIGNED)] == ["directory", "mqtt"]


async def test_each_kind_gives_its_chunks(tmp_path: Path) -> None:
    """The broker's, a medium's and a mirror's, the last over TLS by the CA of the present way to the fleet."""
    authority, other = Authority(tmp_path / "ca.pem", "ca"), Authority(tmp_path / "other.pem", "other")
    home = DeviceHome(tmp_path / "home")
    home.create()
    target = ConnectionTarget(fleet="north", version=1, ca=authority.path.read_text(), brokers=BROKERS)
    connection_sets.adopt(home, connection_sets.offer(home, target))
    on_medium, shelf = medium(tmp_path / "usb"), Shelf(some_chunks(1))
    async with serving(Mirror(some_chunks(3)), authority, tmp_path) as mirror:
        words = [
            {"kind": "mqtt"},
            {"kind": "directory", "path": str(tmp_path / "usb")},
            {"kind": "https", "url": mirror.url},
        ]
        found = settings(sources=words)
        make = maker(home, found, shelf)
        for section, chunks in zip(sections(found, ()), (shelf.chunks, on_medium, mirror.chunks), strict=True):
            source = make.make(section)
            assert source.is_ready and source.trouble == ""
            async with asyncio.timeout(5):
                assert await source.collect(list(chunks), 5) == Collected(chunks)
            await source.release()
        target = target.model_copy(update={"version": 2, "ca": other.path.read_text()})
        connection_sets.adopt(home, connection_sets.offer(home, target))
        assert (await source.collect(list(mirror.chunks), 5)).gone


@pytest.mark.parametrize("shown", [True, False])
async def test_a_device_shows_its_certificate_where_it_is_told_to(tmp_path: Path, shown: bool) -> None:
    """And nowhere else: mirrors need not know who asks."""
    authority, home = Authority(tmp_path / "ca.pem", "ca"), DeviceHome(tmp_path / "home")
    home.create()
    files = IdentityFiles(home)
    authority.issue(files.certificate, files.device_key, "d1")
    target = ConnectionTarget(fleet="north", version=1, ca=authority.path.read_text(), brokers=BROKERS)
    connection_sets.adopt(home, connection_sets.offer(home, target))
    async with serving(Mirror(some_chunks(1)), authority, tmp_path, ask_client=True) as mirror:
        found = settings(sources=[{"kind": "https", "url": mirror.url, "client_certificate": shown}])
        source = maker(home, found).make(found.download.sources[0])
        assert len((await source.collect(list(mirror.chunks), 5)).chunks) == 1
        await source.release()
        assert len(mirror.client_names) == shown


async def test_a_system_ca_is_not_the_fleets(tmp_path: Path) -> None:
    """A mirror that the system must trust is not reached with the fleet's certificate."""
    authority, home = Authority(tmp_path / "ca.pem", "ca"), DeviceHome(tmp_path / "home")
    home.create()
    async with serving(Mirror(some_chunks(1)), authority, tmp_path) as mirror:
        found = settings(sources=[{"kind": "https", "url": mirror.url, "ca": "system"}])
        source = maker(home, found).make(found.download.sources[0])
        assert (await source.collect(list(mirror.chunks), 5)).gone
        assert "certificate is not accepted" in source.trouble
        assert mirror.asked == []


async def test_a_medium_costs_nothing(tmp_path: Path) -> None:
    """Whatever the default route is and however much of the day is used up."""
    chunks = medium(tmp_path / "usb")
    home = DeviceHome(tmp_path / "home")
    home.create()
    values = {
        "device": DEVICE,
        "download": {"sources": [{"kind": "directory", "path": str(tmp_path / "usb"), "allow_metered": False}]},
        "network": {"metered_interfaces": ["*"], "metered_bytes_per_day": 1},
    }
    found = DeviceSettings.model_validate(values)
    source = maker(home, found).make(found.download.sources[0])
    for _ in range(2):
        assert len((await source.collect(list(chunks), 5)).chunks) == len(chunks)
