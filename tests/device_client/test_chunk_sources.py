"""The set that downloads ask: what device.toml and the fleet's offline keys name, as it is when a download begins."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from device_client import connection_sets
from device_client.chunk_sources import ChunkSources, SourceStanding
from device_client.clock import FlooredClock
from device_client.config import DeviceHome, DeviceSettings
from device_client.download.medium_source import MediumSource
from device_client.download.mqtt_source import MqttSource
from protocol.clock import ManualClock, SystemClock
from protocol.enrolment import BrokerAddress, ConnectionTarget, MirrorAddress
from protocol.errors import ErrorCode
from protocol.topics import Topics
from tests.certificates import Authority
from tests.device_client.buses import private_bus
from tests.device_client.download.mirror import Mirror, serving, some_chunks
from tests.device_client.download.test_directory_source import medium
from tests.device_client.download.test_mqtt_source import CIDS, Session
from tests.device_client.identities import NOW, SETTINGS, TestCa, enrolled
from tests.device_client.lab import until
from tests.device_client.test_network import HEAD, RADIO, tables

CA = TestCa()


def sources(home: DeviceHome, place: MediumSource | None = None, **sections: Any) -> ChunkSources:
    """Those of a device with these sections."""
    values = {"device": SETTINGS.device.model_dump(exclude_none=True), **sections}
    clock = FlooredClock(SystemClock())
    settings = DeviceSettings.model_validate(values)
    refused: Callable[[ErrorCode, str], None] = lambda _code, _detail: None  # noqa: E731
    broker = MqttSource(Topics("north"))
    return ChunkSources(home, settings, broker, lambda _: False, refused, clock, Random(1), place)


def sign(home: DeviceHome, version: int, *urls: str, ca: str = CA.pem) -> None:
    """A way to the fleet with these mirrors, in use."""
    mirrors = [MirrorAddress(url=url) for url in urls]
    brokers = [BrokerAddress(host="b.example", port=1)]
    target = ConnectionTarget(fleet="north", version=version, ca=ca, brokers=brokers, mirrors=mirrors)
    connection_sets.adopt(home, connection_sets.offer(home, target))


async def test_networkmanager_says_what_is_metered(tmp_path: Path) -> None:
    """Asked again and again, on the bus that the owner names; a source that may not be used over such a link waits."""
    home = enrolled(tmp_path / "home", CA)
    name, path = "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"
    with private_bus(tmp_path) as bus:
        bus.start("networkmanager", name)
        bus.set(name, path, name, "Metered", ("u", 1))
        found = sources(
            home,
            download={"sources": [{"kind": "mqtt", "allow_metered": False}]},
            network={"metered_from": "networkmanager"},
            gates={"bus": bus.address},
            timing={"gate_interval_s": 0.01},
        )
        watching = asyncio.create_task(found.watch_links())
        await until(lambda: "metered" in found.barred()[0])
        bus.set(name, path, name, "Metered", ("u", 2))
        await until(lambda: not found.barred()[0])
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    async with asyncio.timeout(1):
        await sources(home).watch_links()  # nobody is to be asked


async def test_the_fleets_mirrors_count_from_the_next_download_on(tmp_path: Path) -> None:
    """A download that begins has those that are signed then; without a change it is the same set."""
    home = enrolled(tmp_path / "home", CA)
    found = sources(home)
    first = await found.present()
    assert [one.name for one in found.standings()] == ["mqtt"]
    assert await found.present() is first
    sign(home, 1, "https://one.example", "https://two.example")
    second = await found.present()
    assert second is not first
    assert [one.name for one in found.standings()] == ["mqtt", "https://one.example", "https://two.example"]
    sign(home, 2)
    await found.present()
    assert [one.name for one in found.standings()] == ["mqtt"]


async def test_the_set_goes_on_with_the_next_source(tmp_path: Path) -> None:
    """The broker is not there: the mirror is asked, and the medium as soon as it appears."""
    home, authority = enrolled(tmp_path / "home", CA), Authority(tmp_path / "ca.pem", "ca")
    chunks = some_chunks(4)
    async with serving(Mirror(chunks), authority, tmp_path) as mirror:
        sign(home, 1, ca=authority.path.read_text())
        words = [
            {"kind": "directory", "path": str(tmp_path / "usb")},
            {"kind": "mqtt"},
            {"kind": "https", "url": mirror.url},
        ]
        found = sources(home, download={"sources": words}, timing={"chunk_timeout_s": 0.1})
        present = await found.present()
        await present.ready()
        assert (await present.collect(list(chunks), 5)).chunks == chunks
        assert present.name == mirror.url
        on_medium = medium(tmp_path / "usb")
        assert (await present.collect(list(on_medium), 5)).chunks == on_medium
        assert present.name == str(tmp_path / "usb")
        await present.release()


async def test_nothing_waits_for_a_medium_that_was_never_handed_in(tmp_path: Path) -> None:
    """The broker is asked at once; a medium that is handed in meanwhile is asked from the next window on."""
    home, broker, place = enrolled(tmp_path / "home", CA), MqttSource(Topics("north")), MediumSource()
    settings = SETTINGS.model_copy(update={"timing": SETTINGS.timing.model_copy(update={"chunk_timeout_s": 600})})
    refused: Callable[[ErrorCode, str], None] = lambda _code, _detail: None  # noqa: E731
    clock = FlooredClock(SystemClock())
    found = ChunkSources(home, settings, broker, lambda _: False, refused, clock, Random(1), place)
    broker.attach(Session())
    async with asyncio.timeout(20):
        present = await found.present()
        await present.ready()
        assert (present.name, present.says) == ("mqtt", "from mqtt")
        on_medium = medium(tmp_path / "usb")
        place.use(tmp_path / "usb")
        await present.ready()
        assert (await present.collect(list(on_medium), 5)).chunks == on_medium
    assert present.name == str(tmp_path / "usb")
    assert await found.present() is present


async def test_a_download_that_lost_its_link_goes_on_with_a_medium(tmp_path: Path) -> None:
    """It waits for the broker and names nobody else; the medium that somebody brings ends the wait."""
    home, broker, place = enrolled(tmp_path / "home", CA), MqttSource(Topics("north")), MediumSource(0.01)
    refused: Callable[[ErrorCode, str], None] = lambda _code, _detail: None  # noqa: E731
    clock = FlooredClock(SystemClock())
    found = ChunkSources(home, SETTINGS, broker, lambda _: False, refused, clock, Random(1), place)
    broker.attach(Session())
    async with asyncio.timeout(20):
        present = await found.present()
        await present.ready()
        broker.detach()
        waiting = asyncio.create_task(present.ready())
        await asyncio.sleep(0.05)
        assert not waiting.done() and present.says == "waits for mqtt"
        on_medium = medium(tmp_path / "usb")
        place.use(tmp_path / "usb")
        await waiting
        assert (await present.collect(list(on_medium), 5)).chunks == on_medium


async def test_what_bars_every_source_is_told(tmp_path: Path) -> None:
    """By source, with the reason; a medium costs nothing."""
    home = enrolled(tmp_path / "home", CA)
    (tmp_path / "proc" / "net").mkdir(parents=True)
    head, route = "Iface Destination ...\n", "wwan0 00000000 00000000 0001 0 0 0 00000000 0 0 0\n"
    (tmp_path / "proc" / "net" / "route").write_text(head + route)
    network = {"metered_interfaces": ["wwan*"], "proc": str(tmp_path / "proc")}
    words = [{"kind": "mqtt", "allow_metered": False}, {"kind": "directory", "path": "/media/none"}]
    found = sources(home, download={"sources": words}, network=network)
    assert [bool(one) for one in found.barred()] == [True, False]
    reason = "interface wwan0 is metered, and this source may not be used over it"
    assert found.standings()[0] == SourceStanding("mqtt", False, reason)


async def test_a_medium_that_was_handed_in_is_there_whatever_links_cost(tmp_path: Path) -> None:
    """No source may be asked over the metered link, and the gate opens all the same; people see the medium."""
    home, place = enrolled(tmp_path / "home", CA), MediumSource()
    network = {"metered_interfaces": ["wwan*"], "proc": str(tables(tmp_path, HEAD + RADIO))}
    found = sources(home, place, download={"sources": [{"kind": "mqtt", "allow_metered": False}]}, network=network)
    assert all(found.barred()) and [one.name for one in found.standings()] == ["mqtt"]
    medium(tmp_path / "usb")
    place.use(tmp_path / "usb")
    assert not all(found.barred())
    assert found.standings()[0] == SourceStanding(str(tmp_path / "usb"), True, "")
    (tmp_path / "usb" / "chunks").rename(tmp_path / "away")
    assert all(found.barred()) and found.standings()[0].trouble.endswith("not there")


@pytest.mark.parametrize(("floor", "is_left"), [(101, True), (100, False), (0, False)])
async def test_a_broker_below_the_floor_of_the_settings_is_left(tmp_path: Path, floor: int, is_left: bool) -> None:
    """The rate, and what it is averaged over, are those of ``device.toml``."""
    download = {"min_rate_bytes_s": floor, "slow_window_s": 10}
    settings = DeviceSettings.model_validate({"device": SETTINGS.device.model_dump(), "download": download})
    clock, left, refused = ManualClock(NOW), [], []
    broker = MqttSource(Topics("fleet"))

    def leave(why: str) -> bool:
        left.append(why)
        return True

    found = ChunkSources(
        enrolled(tmp_path / "home", CA),
        settings,
        broker,
        leave,
        lambda *what: refused.append(what),
        FlooredClock(clock),
        Random(1),
    )
    present = await found.present()
    broker.attach(Session())
    task = asyncio.create_task(present.collect(CIDS[:2], 60))
    for _ in range(5):
        await asyncio.sleep(0)
    broker.deliver(CIDS[0], b"x" * 1000)
    clock.advance(10)
    found.watch()
    assert [code for code, _ in refused] == [ErrorCode.SLOW] * is_left
    assert len(left) == is_left
    broker.detach()
    assert (await task).unsent == (CIDS[1],)
