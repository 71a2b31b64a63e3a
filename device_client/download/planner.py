"""Which chunks to ask for next, and when. Pure: the caller brings the time and the randomness.

    missing -> asked -> verified            a chunk that is verified is never asked for again
                     -> lost, refused       asked again: the first time at once, then with a growing delay
                     -> unsent              asked again at once: it was never on its way

Several windows may be out at once; none has a chunk of another. Brokers drop bursts of retained messages without a
word, so a window is bounded in count and bytes and shrinks when something did not come.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from random import Random

from protocol.mqtt.connection import backoff

MIN_WINDOW = 4
"""Losses shrink a window down to this many chunks."""
MAX_PATIENCE = 8
"""A chunk that was lost is waited for longer, up to this many times ``chunk_timeout_s``: the link may be slow."""


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """How large windows may be and how long losses are waited out."""

    start: int
    most: int
    most_bytes: int
    retry_base_s: float = 1.0
    retry_cap_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Window:
    """Chunks to ask for at once; ``patience`` multiplies the time that silence is accepted for."""

    cids: tuple[str, ...]
    size_bytes: int
    patience: int


@dataclass(slots=True)
class _Lost:
    tries: int
    not_before: float


class Plan:
    """What is missing of one download."""

    def __init__(self, missing: Mapping[str, int], limits: WindowLimits, random: Random) -> None:
        """Plan a download.

        Args:
            missing: Ciphertext bytes by chunk id, in the order to fetch.
            limits: Bounds of a window.
            random: For the jitter of delays.

        Raises:
            ValueError: A chunk is larger than a window may be.
        """
        self._limits = limits
        self._check(missing)
        self._fresh = dict(missing)
        self._sizes = dict(missing)
        self._lost: dict[str, _Lost] = {}
        self._out: set[str] = set()
        self._random = random
        self._count = min(limits.start, limits.most)

    @property
    def done(self) -> bool:
        """Whether everything is verified."""
        return not self._sizes

    @property
    def window_count(self) -> int:
        """The most chunks in the next window."""
        return self._count

    def next_window(self, now: float, most_bytes: int | None = None) -> Window | None:
        """The next chunks to ask for; None when nothing may be asked for at ``now``.

        They are out until the plan is told what became of them.

        Args:
            now: Monotonic seconds.
            most_bytes: A bound below that of the limits; one chunk fits all the same.
        """
        most_bytes = min(most_bytes or self._limits.most_bytes, self._limits.most_bytes)
        chosen: list[str] = []
        size, tries = 0, 0
        due = (cid for cid, lost in self._lost.items() if cid not in self._out and lost.not_before <= now)
        for cid in chain(due, self._fresh):
            if len(chosen) == self._count or (chosen and size + self._sizes[cid] > most_bytes):
                break
            chosen.append(cid)
            size += self._sizes[cid]
            tries = max(tries, self._lost[cid].tries if cid in self._lost else 0)
        if not chosen:
            return None
        self._out.update(chosen)
        for cid in chosen:
            if cid in self._fresh:
                del self._fresh[cid]
                self._lost[cid] = _Lost(0, now)
        return Window(tuple(chosen), size, min(MAX_PATIENCE, 2**tries))

    def next_due(self) -> float | None:
        """When the next chunk that is not out may be asked for; None when all are out, or verified."""
        if self._fresh:
            return 0.0
        return min((lost.not_before for cid, lost in self._lost.items() if cid not in self._out), default=None)

    def verified(self, cids: Iterable[str]) -> None:
        """These are on the disk and need not come again."""
        for cid in cids:
            self._sizes.pop(cid, None)
            self._fresh.pop(cid, None)
            self._lost.pop(cid, None)
            self._out.discard(cid)

    def replace(self, cid: str, instead: Mapping[str, int]) -> None:
        """Fetch others in the place of one that was of no use; a chunk that is missing already stays as it is.

        Raises:
            ValueError: One of them is larger than a window may be.
        """
        self._check(instead)
        self.verified((cid,))
        for other, size in instead.items():
            if other not in self._sizes:
                self._sizes[other] = self._fresh[other] = size

    def came(self, window: Window) -> None:
        """All of ``window`` arrived: the next one may be larger. Its chunks stay out until they are judged."""
        if 2 * len(window.cids) >= self._count:
            self._count = min(self._limits.most, self._count * 2)

    def unsent(self, cids: Iterable[str]) -> None:
        """These were asked for in vain: the source went away before it could answer."""
        self._out.difference_update(cids)

    def lost(self, cids: Iterable[str], now: float) -> tuple[str, ...]:
        """These were asked for and did not come.

        Returns:
            Those that did not come twice or more: to be reported as wanted.
        """
        wanted = self._again(cids, now, at_once=1)
        self._count = max(min(MIN_WINDOW, self._count), self._count // 2)
        return wanted

    def refused(self, cids: Iterable[str], now: float) -> tuple[str, ...]:
        """These came and were not what the manifest names.

        Returns:
            Those to be reported as wanted: all of them, for the broker holds something else.
        """
        return self._again(cids, now, at_once=0)

    def _again(self, cids: Iterable[str], now: float, at_once: int) -> tuple[str, ...]:
        wanted: list[str] = []
        for cid in cids:
            self._out.discard(cid)
            if cid not in self._sizes:
                continue
            self._fresh.pop(cid, None)
            tries = self._lost[cid].tries + 1 if cid in self._lost else 1
            delay = 0.0
            if tries > at_once:
                wanted.append(cid)
                delay = backoff(tries - at_once, self._random, self._limits.retry_base_s, self._limits.retry_cap_s)
            self._lost[cid] = _Lost(tries, now + delay)
        return tuple(wanted)

    def _check(self, sizes: Mapping[str, int]) -> None:
        if any(not 0 < size <= self._limits.most_bytes for size in sizes.values()):
            raise ValueError("a chunk does not fit a window")
