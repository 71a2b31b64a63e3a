"""What has arrived over one connection and was not read yet.

Messages are taken from paho's callback at once; aiomqtt never sees them. It parses each topic, makes a task and waits
on two futures for every message: several times the cost of reading in one go.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client, MQTTMessage


@dataclass(frozen=True, slots=True)
class Message:
    """What arrived."""

    topic: str
    payload: bytes
    retain: bool
    qos: int


class Arrivals:
    """In order, and bounded.

    Attributes:
        dropped: Messages that came when there were as many as may wait, or whose topic is no text.
    """

    def __init__(self, most: int) -> None:
        """Hold up to ``most`` messages; 0 means any number."""
        self.messages: deque[Message] = deque()
        self.dropped = 0
        self._most = most
        self._woken = asyncio.Event()

    def take(self, client: Client, userdata: Any, message: MQTTMessage) -> None:  # noqa: ANN401, ARG002 - paho's
        """Paho's ``on_message``; never raises: paho would handle the same packet again and again."""
        if self._most and len(self.messages) >= self._most:
            self.dropped += 1
            return
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self.dropped += 1
            return
        self.messages.append(Message(topic, bytes(message.payload), message.retain, message.qos))
        self._woken.set()

    async def wait(self) -> None:
        """Wait until there is a message, or somebody wakes the reader."""
        self._woken.clear()
        if not self.messages:
            await self._woken.wait()

    def wake(self) -> None:
        """Let the reader look at its connection."""
        self._woken.set()
