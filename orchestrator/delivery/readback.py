"""Asking the broker for what it retains: a PUBACK proves nothing, only what is delivered does."""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from typing import TypeVar

from protocol.mqtt.connection import Message, Session

T = TypeVar("T")

WINDOW = 16
"""Topics asked for at once; far below every queue limit."""
LANES = 4
"""Windows under way at once: a round trip of one is the work of another."""


def windows(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """At most ``WINDOW`` at a time, in order."""
    for start in range(0, len(items), WINDOW):
        yield items[start : start + WINDOW]


class _Fetch:
    """What one question waits for."""

    def __init__(self, topics: Sequence[str], last: str | None) -> None:
        self._found: dict[str, bytes | None] = dict.fromkeys(topics)
        self._last = last
        self._missing = len(self._found)
        self.complete = asyncio.Event()

    def take(self, message: Message) -> None:
        if message.topic not in self._found:
            return
        if self._found[message.topic] is None:
            self._missing -= 1
        self._found[message.topic] = message.payload
        if not self._missing or message.topic == self._last:
            self.complete.set()

    def found(self) -> dict[str, bytes]:
        return {topic: payload for topic, payload in self._found.items() if payload is not None}


class ReadBack:
    """Fetches retained messages through a session whose messages are passed to ``deliver``."""

    def __init__(self) -> None:
        self._lanes = asyncio.Semaphore(LANES)
        self._fetches: set[_Fetch] = set()

    def deliver(self, message: Message) -> None:
        """Take a message of the session; what nobody waits for is passed over."""
        if message.retain:
            for fetch in self._fetches:
                fetch.take(message)

    async def fetch(
        self, session: Session, topics: Collection[str], timeout_s: float, *, last: str | None = None
    ) -> dict[str, bytes]:
        """What the broker retains of at most ``WINDOW`` topics; what does not come in time is left out.

        Args:
            last: A topic that is surely retained, asked for behind the others: when it has come, what did not come
                before it is not there, and nobody waits for it. It is among what is returned.

        Raises:
            ConnectionLost: The session ended.
        """
        if len(topics) > WINDOW:
            raise ValueError(f"at most {WINDOW} topics at once")
        if not topics:
            return {}
        asked = [*topics] if last is None else [*topics, last]
        async with self._lanes:
            fetch = _Fetch(asked, last)
            self._fetches.add(fetch)
            try:
                await session.subscribe([(topic, 1) for topic in asked])
                try:
                    async with asyncio.timeout(timeout_s):
                        await fetch.complete.wait()
                except TimeoutError:
                    pass
                await session.unsubscribe(asked)
                return fetch.found()
            finally:
                self._fetches.discard(fetch)
