"""Which of several sources is asked, and which for a chunk that did not come. Pure: the caller brings the time.

    preferred first -> not ready, too slow or failing -> the next one that is ready
                    <- after a while, longer each time it fails again

A source that was left is barred for that while, so two never take turns; when all that are ready are barred, the
present one stays.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from random import Random

MAX_DOUBLINGS = 4
FAILING_WINDOWS = 3
"""As many windows one after the other of which nothing came make a source a failing one."""
ELSEWHERE_AFTER = 3
"""A chunk that did not come as often from one source is asked of another: asked, asked again, wanted."""


@dataclass(frozen=True, slots=True)
class ChoiceLimits:
    """How long is waited.

    Attributes:
        return_after_s: How long a source that was left is not asked, first; with jitter of a quarter.
        grace_s: How long the present source may be not ready before the next is taken.
    """

    return_after_s: float = 60.0
    grace_s: float = 5.0


@dataclass(slots=True)
class _Standing:
    strikes: int = 0
    barred_s: float = 0.0
    barred_until: float = 0.0
    absent_since: float | None = None
    empty_windows: int = 0


class SourceChoice:
    """The standing of each source; a source is known by its place in the order of preference."""

    def __init__(self, count: int, limits: ChoiceLimits, random: Random, unexpected: Collection[int] = ()) -> None:
        """Begin with all of ``count`` sources in good standing; nobody waits for the first sight of ``unexpected``."""
        self._all = [_Standing(absent_since=-math.inf if n in unexpected else None) for n in range(count)]
        self._limits = limits
        self._random = random
        self._chosen_at = 0.0
        self.current: int | None = None

    def choose(self, ready: Sequence[bool], now: float) -> int | None:
        """The source to ask now; None when it is to be waited for."""
        for standing, is_ready in zip(self._all, ready, strict=True):
            if is_ready:
                standing.absent_since = None
            elif standing.absent_since is None:
                standing.absent_since = now
        chosen = self._best(ready, now)
        if chosen is None:
            return None
        if self.current not in (None, chosen) and not ready[self.current or 0]:
            self._bar(self.current or 0, now)
        if chosen != self.current:
            self.current, self._chosen_at = chosen, now
        elif self._all[chosen].strikes and now - self._chosen_at >= self._all[chosen].barred_s:
            self._all[chosen].strikes = 0  # it has been good for as long as it was barred
        return chosen

    def others(self, source: int, ready: Sequence[bool], now: float) -> bool:
        """Whether there is another that is ready and in good standing."""
        return any(is_ready and n != source and self._is_open(n, now) for n, is_ready in enumerate(ready))

    def failed(self, source: int, now: float) -> None:
        """It was too slow or gave nothing; it is left for a while, for longer each time."""
        standing = self._all[source]
        if self._is_open(source, now):
            standing.strikes += 1
            self._bar(source, now)
        standing.empty_windows = 0

    def answered(self, source: int, *, came: int) -> bool:
        """A window is over; whether the source is now one that fails."""
        standing = self._all[source]
        standing.empty_windows = 0 if came else standing.empty_windows + 1
        return standing.empty_windows >= FAILING_WINDOWS

    def next_change(self, now: float) -> float | None:
        """Seconds until the choice may differ though no source becomes ready: the end of a grace."""
        if self.current is None:
            starts = [s.absent_since for s in self._all if s.absent_since is not None]
        else:
            absent_since = self._all[self.current].absent_since
            starts = [absent_since] if absent_since is not None else []
        ends = [start + self._limits.grace_s for start in starts if start + self._limits.grace_s > now]
        return min(ends) - now if ends else None

    def _best(self, ready: Sequence[bool], now: float) -> int | None:
        for n, standing in enumerate(self._all):
            if not self._is_open(n, now):
                continue
            if ready[n]:
                return n
            absent_s = now - (now if standing.absent_since is None else standing.absent_since)
            if self.current in (None, n) and absent_s < self._limits.grace_s:
                return None
        if self.current is not None and ready[self.current]:
            return self.current
        barred = [n for n, is_ready in enumerate(ready) if is_ready]
        return min(barred, key=lambda n: self._all[n].barred_until, default=None)

    def _is_open(self, source: int, now: float) -> bool:
        return self._all[source].barred_until <= now

    def _bar(self, source: int, now: float) -> None:
        standing = self._all[source]
        doublings = min(MAX_DOUBLINGS, max(0, standing.strikes - 1))
        standing.barred_s = self._limits.return_after_s * 2.0**doublings * self._random.uniform(0.75, 1.25)
        standing.barred_until = max(standing.barred_until, now + standing.barred_s)


class Misses:
    """How often a chunk that is still missing did not come, by source. Empty while nothing is lost."""

    def __init__(self) -> None:
        self._misses: dict[str, dict[int, int]] = {}

    def __len__(self) -> int:
        """Chunks that did not come, or came wrong, and are still missing."""
        return len(self._misses)

    def missed(self, cid: str, source: int) -> None:
        """It was asked for and did not come."""
        by_source = self._misses.setdefault(cid, {})
        by_source[source] = by_source.get(source, 0) + 1

    def spoiled(self, cid: str, source: int) -> int:
        """What came was not it: that source has nothing better, unless somebody mends it; how often by now."""
        by_source = self._misses.setdefault(cid, {})
        by_source[source] = max(ELSEWHERE_AFTER, by_source.get(source, 0) + 1)
        return by_source[source]

    def settled(self, cids: Iterable[str]) -> None:
        """These are verified."""
        if self._misses:
            for cid in cids:
                self._misses.pop(cid, None)

    def renewed(self, source: int) -> None:
        """The source is another one from now on, such as another broker."""
        for by_source in self._misses.values():
            by_source.pop(source, None)

    def route(self, cids: Iterable[str], current: int, ready: Sequence[bool]) -> dict[int, list[str]]:
        """Whom to ask for each: the current source, unless it failed too often and another did less often."""
        routes: dict[int, list[str]] = {}
        for cid in cids:
            routes.setdefault(self._whom(cid, current, ready), []).append(cid)
        return routes

    def is_nowhere(self, cid: str, source: int, ready: Sequence[bool]) -> bool:
        """Whether that source and all who are ready failed too often for it."""
        by_source = self._misses.get(cid, {})
        able = [n for n, is_ready in enumerate(ready) if is_ready or n == source]
        return all(by_source.get(n, 0) >= ELSEWHERE_AFTER for n in able)

    def _whom(self, cid: str, current: int, ready: Sequence[bool]) -> int:
        by_source = self._misses.get(cid)
        if by_source is None or by_source.get(current, 0) < ELSEWHERE_AFTER:
            return current
        able = [n for n, is_ready in enumerate(ready) if is_ready or n == current]
        return min(able, key=lambda n: (by_source.get(n, 0), n))
