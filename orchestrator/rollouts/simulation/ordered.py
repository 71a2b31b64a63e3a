"""Members in an order that changes all the time: what a question costs is what it finds.

A heap keeps what was put and forgets nothing; ``live`` says what still holds. What does not hold any more is dropped
when a question comes upon it, and when it becomes more than what does.
"""

from collections.abc import Iterator
from datetime import datetime
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", str, float, datetime)
_SLACK = 64


class Ordered(Generic[Key]):
    """Members by key, the smallest first; members of one key by name."""

    __slots__ = ("_heap", "live")

    def __init__(self) -> None:
        self._heap: list[tuple[Any, str]] = []
        self.live: dict[str, Key] = {}

    def put(self, member: str, key: Key) -> None:
        """Add a member, or move it to another key."""
        if self.live.get(member) != key:
            self.live[member] = key
            heappush(self._heap, (key, member))
            self._tidy()

    def drop(self, member: str) -> None:
        """Take a member out; one that is not there is no mistake."""
        if self.live.pop(member, None) is not None:
            self._tidy()

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self.live) + _SLACK:
            self._heap = [(key, member) for member, key in self.live.items()]
            heapify(self._heap)

    def first(self) -> Key | None:
        """The smallest key."""
        heap, live = self._heap, self.live
        while heap:
            key, member = heap[0]
            if live.get(member) == key:
                found: Key = key
                return found
            heappop(heap)
        return None

    def take(self, limit: int, until: Key | None = None) -> list[str]:
        """The first members, with keys up to ``until``, at most ``limit``. They stay where they are."""
        found = list(islice(self._popped(until), max(0, limit)))
        for entry in found:
            heappush(self._heap, entry)
        return [member for _, member in found]

    def _popped(self, until: Key | None) -> Iterator[tuple[Any, str]]:
        heap, live, last = self._heap, self.live, None
        while heap and (until is None or heap[0][0] <= until):
            entry = heappop(heap)
            if entry != last and live.get(entry[1]) == entry[0]:  # one that went and came back stands there twice
                last = entry
                yield entry
