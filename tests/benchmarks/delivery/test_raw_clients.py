"""Light devices say and check what an agent does, on a real broker."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from benchmarks.delivery.raw_clients import Identity, MqttDevice, windows
from benchmarks.delivery.servers import Served, plain_mosquitto
from orchestrator.config import Home
from protocol.mqtt.connection import ConnectionSettings, Session, connect
from tests.certificates import Authority

DEADLINE_S = 20.0


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Certificates of a broker and of a device ``d1``."""
    home = Home(tmp_path / "home")
    home.devices_ca.parent.mkdir(parents=True)
    authority = Authority(home.devices_ca, "devices")
    for name in ("broker", "d1"):
        authority.issue(*home.certificate(name), name)
    return home


@pytest.fixture
async def broker(home: Home, tmp_path: Path) -> AsyncIterator[Served]:
    """A mosquitto."""
    async with plain_mosquitto(tmp_path / "mosquitto", home) as served:
        yield served


def _identity(home: Home) -> Identity:
    return Identity(home.devices_ca, *home.certificate("d1"))


async def _retain(home: Home, port: int, count: int) -> dict[str, int]:
    certificate, key = home.certificate("d1")
    target = ConnectionSettings("127.0.0.1", port, "publisher", home.devices_ca, certificate, key)
    async with connect(target) as session:
        return dict([await _publish(session, os.urandom(1000 + number)) for number in range(count)])


async def _publish(session: Session, data: bytes) -> tuple[str, int]:
    topic = f"ota/v1/f/chunk/{hashlib.sha256(data).hexdigest()}"
    await session.publish(topic, data, retain=True)
    return topic, len(data)


async def test_a_light_device_fetches_retained_chunks_by_windows(home: Home, broker: Served) -> None:
    """All bytes come and each payload is what its topic names."""
    sizes = await _retain(home, broker.port, 20)
    async with asyncio.timeout(DEADLINE_S):
        device = await asyncio.to_thread(MqttDevice, broker.port, _identity(home), "d1")
        assert await asyncio.to_thread(device.fetch, sizes, 8, 2**20) == sum(sizes.values())
    assert device.line.cipher.startswith("TLSv1.3 ")
    device.close()


def test_windows_keep_both_bounds() -> None:
    """Count and bytes bound a window; nothing is left out, and one that is too large goes alone."""
    sizes = {"a": 5, "b": 5, "c": 11, "d": 1, "e": 1, "f": 1}
    assert windows(sizes, 2, 10) == [["a", "b"], ["c"], ["d", "e"], ["f"]]
