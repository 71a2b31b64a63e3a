"""Chunks that devices say did not come: several wants of one chunk are one publish, and not again for an interval."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence

from protocol.clock import Clock

MAX_WAITING = 4096
"""Chunks; what is wanted beyond it is wanted again."""

Dropped = Callable[[str, int], None]
"""Told (reason, how many) of what is not honoured."""


class ChunkWants:
    """What one broker's devices want. Whether they may was looked at before."""

    def __init__(self, clock: Clock, interval_s: float, dropped: Dropped) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._dropped = dropped
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._served: OrderedDict[str, float] = OrderedDict()  # the oldest first
        self.woken = asyncio.Event()

    def __len__(self) -> int:
        """Chunks that wait."""
        return len(self._waiting)

    def add(self, cids: Collection[str]) -> None:
        """Take wants; those of a chunk that waits already are the same want."""
        self._forget_old()
        too_soon = overflow = 0
        for cid in cids:
            if cid in self._waiting:
                continue
            if cid in self._served:
                too_soon += 1
            elif len(self._waiting) >= MAX_WAITING:
                overflow += 1
            else:
                self._waiting[cid] = None
        for reason, count in (("too_soon", too_soon), ("overflow", overflow)):
            if count:
                self._dropped(reason, count)
        if self._waiting:
            self.woken.set()

    def oldest(self, limit: int) -> Sequence[str]:
        """Up to ``limit`` chunks, those that wait longest first; they go on waiting until ``done``."""
        return [cid for cid, _ in zip(self._waiting, range(limit), strict=False)]

    def done(self, cids: Collection[str], published: Collection[str]) -> None:
        """These were looked at; of them ``published`` went out, the others have no place on this broker."""
        now = self._clock.monotonic()
        for cid in cids:
            self._waiting.pop(cid, None)
            self._served[cid] = now
            self._served.move_to_end(cid)
        if absent := len(set(cids) - set(published)):
            self._dropped("not_on_broker", absent)

    def _forget_old(self) -> None:
        before = self._clock.monotonic() - self._interval_s
        while self._served and next(iter(self._served.values())) <= before:
            self._served.popitem(last=False)
