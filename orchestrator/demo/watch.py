"""Reads the status topics as a dashboard does: with the viewer's certificate, over TLS."""

import asyncio
from collections.abc import Callable, Sequence
from random import SystemRandom

from pydantic import BaseModel

from orchestrator.config import Home, Settings
from orchestrator.errors import OperationError
from protocol.envelopes import decode
from protocol.errors import ProtocolError
from protocol.mqtt.connection import ConnectionLost, ConnectionSettings, Message, RequestRefused, backoff, connect
from protocol.status_messages import DeviceStatus, RolloutStatus
from protocol.topics import RULES, Kind, Topics


class Watch:
    """The newest status of every rollout and device."""

    def __init__(self, home: Home, settings: Settings, devices: Sequence[str]) -> None:
        certificate, key = home.certificate("viewer")
        self._connection = ConnectionSettings(
            host=settings.broker.host,
            port=settings.broker.service_port,
            client_id="demo-viewer",
            ca=home.devices_ca,
            certificate=certificate,
            key=key,
        )
        self._topics = Topics(settings.fleet)
        self._names = devices
        self._changed = asyncio.Event()
        self.rollouts: dict[str, RolloutStatus] = {}
        self.devices: dict[str, DeviceStatus] = {}
        self.on_device: Callable[[DeviceStatus | None, DeviceStatus], None] = lambda _before, _after: None
        self.on_rollout: Callable[[RolloutStatus | None, RolloutStatus], None] = lambda _before, _after: None

    async def run(self) -> None:
        """Follow the topics until cancelled, over as many connections as it takes."""
        random = SystemRandom()
        while True:
            try:
                async with connect(self._connection) as session:
                    await session.subscribe(self._subscriptions())
                    async for message in session.messages():
                        self._take(message)
            except (ConnectionLost, RequestRefused):
                await asyncio.sleep(backoff(0, random, 0.5, 1.0))

    async def until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for a condition over ``rollouts`` and ``devices``.

        Raises:
            OperationError: It did not come true in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise OperationError(f"demo: within {timeout_s:.0f} s {what} did not come about") from None

    def _subscriptions(self) -> list[tuple[str, int]]:
        """Rollouts by wildcard, devices by name (design, section 3)."""
        rollouts = self._topics.filter(Kind.STATUS_ROLLOUT), RULES[Kind.STATUS_ROLLOUT].qos
        devices = [self._topics.build(Kind.STATUS_DEVICE, device=name) for name in self._names]
        return [rollouts, *((topic, RULES[Kind.STATUS_DEVICE].qos) for topic in devices)]

    def _take(self, message: Message) -> None:
        try:
            topic = self._topics.parse(message.topic)
            if not message.payload or len(message.payload) > RULES[topic.kind].max_bytes:
                return
            if topic.kind is Kind.STATUS_ROLLOUT:
                rollout = decode(message.payload, RolloutStatus)
                self.on_rollout(self.rollouts.get(rollout.id), rollout)
                self.rollouts[rollout.id] = rollout
            elif topic.kind is Kind.STATUS_DEVICE:
                device = decode(message.payload, DeviceStatus)
                self.on_device(self.devices.get(device.id), device)
                self.devices[device.id] = device
        except ProtocolError:
            return  # not for this reader; a dashboard goes on
        self._changed.set()


def same(before: BaseModel | None, after: BaseModel, *fields: str) -> bool:
    """Whether the named fields did not change."""
    return before is not None and all(getattr(before, name) == getattr(after, name) for name in fields)
