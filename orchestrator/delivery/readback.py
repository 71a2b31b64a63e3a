"""Asking the broker for what it retains: a PUBACK proves nothing, only what is delivered does."""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from typing import TypeVar

from protocol.mqtt.connection import Message, Session

T = TypeVar("T")

WINDOW = 16
"""Topics asked for at once; far below every queue limit."""


def windows(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """At most ``WINDOW`` at a time, in order."""
    for start in range(0, len(items), WINDOW):
        yield items[start : start + WINDOW]


class ReadBack:
    """Fetches retained messages through a session whose messages are passed to ``deliver``."""

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Lock()
        self._wanted: dict[str, bytes | None] = {}
        self._complete = asyncio.Event()

    def deliver(self, message: Message) -> None:
        """Take a message of the session; what nobody waits for is passed over."""
        if message.retain and message.topic in self._wanted:
            self._wanted[message.topic] = message.payload
            if all(payload is not None for payload in self._wanted.values()):
                self._complete.set()

    async def fetch(self, session: Session, topics: Collection[str], timeout_s: float) -> dict[str, bytes]:
        """What the broker retains of at most ``WINDOW`` topics; what does not come in time is left out.

        Raises:
            ConnectionLost: The session ended.
        """
        if len(topics) > WINDOW:
            raise ValueError(f"at most {WINDOW} topics at once")
        async with self._one_at_a_time:
            self._wanted = dict.fromkeys(topics)
            self._complete.clear()
            try:
                await session.subscribe([(topic, 1) for topic in topics])
                try:
                    async with asyncio.timeout(timeout_s):
                        await self._complete.wait()
                except TimeoutError:
                    pass
                await session.unsubscribe(list(topics))
                return {topic: payload for topic, payload in self._wanted.items() if payload is not None}
            finally:
                self._wanted = {}
