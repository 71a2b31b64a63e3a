"""The sources of a device are those of its settings."""

import asyncio
from random import Random

import pytest

from device_client.chunk_sources import make_sources
from device_client.config import DeviceSettings
from device_client.download.mqtt_source import MqttSource
from protocol.clock import ManualClock
from protocol.errors import ErrorCode
from protocol.topics import Topics
from tests.device_client.download.test_mqtt_source import CIDS, Session
from tests.protocol.trust.repository import NOW

DEVICE = {"id": "d1", "product": "gateway", "hardware": "rev-a"}


@pytest.mark.parametrize(("floor", "is_left"), [(101, True), (100, False), (0, False)])
async def test_a_broker_below_the_floor_of_the_settings_is_left(floor: int, is_left: bool) -> None:
    """The rate, and what it is averaged over, are those of ``device.toml``."""
    settings = DeviceSettings.model_validate(
        {"device": DEVICE, "download": {"min_rate_bytes_s": floor, "slow_window_s": 10}}
    )
    clock, left, refused = ManualClock(NOW), [], []
    broker = MqttSource(Topics("fleet"))

    def leave(why: str) -> bool:
        left.append(why)
        return True

    sources = make_sources(settings, broker, leave, lambda *what: refused.append(what), clock, Random(1))
    broker.attach(Session())
    task = asyncio.create_task(sources.collect(CIDS[:2], 60))
    for _ in range(5):
        await asyncio.sleep(0)
    broker.deliver(CIDS[0], b"x" * 1000)
    clock.advance(10)
    sources.watch()
    assert [code for code, _ in refused] == [ErrorCode.SLOW] * is_left
    assert len(left) == is_left
    broker.detach()
    assert (await task).unsent == (CIDS[1],)
