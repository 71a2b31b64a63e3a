"""Which chunks to ask for next, and when. Pure: the caller brings the time and the randomness.

    missing -> asked -> verified            a chunk that is verified is never asked for again
                     -> lost, refused       asked again: the first time at once, then with a growing delay

Brokers drop bursts of retained messages without a word, so a window is bounded in count and bytes and shrinks when
something did not come.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
        if any(not 0 < size <= limits.most_bytes for size in missing.values()):
            raise ValueError("a chunk does not fit a window")
        self._fresh = dict(missing)
        self._sizes = dict(missing)
        self._lost: dict[str, _Lost] = {}
        self._limits = limits
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

    def next_window(self, now: float, leave_out: Iterable[str] = ()) -> Window | None:
        """The next chunks to ask for; None when nothing may be asked for at ``now``.

        Args:
            now: Monotonic seconds.
            leave_out: Chunks that have arrived and are being verified.
        """
        held = set(leave_out)
        due = [cid for cid, lost in self._lost.items() if lost.not_before <= now and cid not in held]
        chosen: list[str] = []
        size = 0
        for cid in (*due, *self._fresh):
            if cid in held:
                continue
            if len(chosen) == self._count or size + self._sizes[cid] > self._limits.most_bytes:
                break
            chosen.append(cid)
            size += self._sizes[cid]
        if not chosen:
            return None
        tries = max((self._lost[cid].tries for cid in chosen if cid in self._lost), default=0)
        return Window(tuple(chosen), size, min(MAX_PATIENCE, 2**tries))

    def next_due(self, leave_out: Iterable[str] = ()) -> float | None:
        """When the next delayed chunk may be asked for; None when nothing is delayed."""
        held = set(leave_out)
        return min((lost.not_before for cid, lost in self._lost.items() if cid not in held), default=None)

    def verified(self, cids: Iterable[str]) -> None:
        """These are on the disk and need not come again."""
        for cid in cids:
            self._sizes.pop(cid, None)
            self._fresh.pop(cid, None)
            self._lost.pop(cid, None)

    def replace(self, cid: str, instead: Mapping[str, int]) -> None:
        """Fetch others in the place of one that was of no use; a chunk that is missing already stays as it is."""
        self.verified((cid,))
        for other, size in instead.items():
            if other not in self._sizes:
                self._sizes[other] = self._fresh[other] = size

    def came(self, window: Window) -> None:
        """All of ``window`` arrived: the next one may be larger."""
        if len(window.cids) == self._count:
            self._count = min(self._limits.most, self._count * 2)

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
