"""Several sources as one: asks the one that is chosen, measures it, leaves it when it is too slow or gives nothing.

What is decided is in ``source_choice``; here is who is asked, and who is told. A broker that cannot be left for another
source is left for another broker.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

import structlog

from device_client.download.link_estimate import Asked, LinkEstimate
from device_client.download.rate_floor import RateFloor
from device_client.download.source_choice import ELSEWHERE_AFTER, ChoiceLimits, Misses, SourceChoice
from device_client.download.sources import ChunkSource, Collected
from protocol.clock import Clock, SystemClock
from protocol.errors import ErrorCode

log = structlog.get_logger(__name__)

LOOK_AGAIN_S = 1.0
"""How often the choice is looked at while nobody is ready."""


@dataclass(frozen=True, slots=True)
class Supplier:
    """A source, and what may be done with it.

    Attributes:
        min_rate_bytes_s: Slower than this, it is left; 0 means never.
        received: Bytes that came from it since it was made; without, only whole windows are counted.
        interrupt: Ends its windows with what came so far; without, they are cancelled.
        leave: Ends its connection, told why, so that another broker is tried; False: there is no other.
        is_expected: Whether it is waited for a moment at the start; it is asked whenever it is there.
    """

    source: ChunkSource
    min_rate_bytes_s: int = 0
    received: Callable[[], int] | None = None
    interrupt: Callable[[], None] | None = None
    leave: Callable[[str], bool] | None = None
    is_expected: bool = True


@dataclass(frozen=True, slots=True)
class Supplied:
    """What became of one window.

    Attributes:
        chunks: Ciphertext by id, unverified.
        lost: Asked for, and did not come.
        unsent: Asked for in vain: the source went away.
    """

    chunks: dict[str, bytes]
    lost: tuple[str, ...] = ()
    unsent: tuple[str, ...] = ()
    by: dict[str, int] = field(default_factory=dict)


class _Link:
    """One supplier at work."""

    def __init__(self, supplier: Supplier, slow_window_s: float) -> None:
        self.supplier = supplier
        self.floor = RateFloor(supplier.min_rate_bytes_s, slow_window_s)
        self.estimate = LinkEstimate()
        self.at_work: set[asyncio.Task[Collected]] = set()
        self.counted_bytes = 0
        self.seen_bytes = 0

    @property
    def name(self) -> str:
        return self.supplier.source.name

    @property
    def received_bytes(self) -> int:
        """Bytes that came so far."""
        return self.supplier.received() if self.supplier.received else self.counted_bytes

    def measure(self) -> None:
        """Tell the floor what came."""
        received = self.received_bytes
        self.floor.arrived(received - self.seen_bytes)
        self.seen_bytes = received

    def interrupt(self) -> None:
        """End the windows that are out."""
        if self.supplier.interrupt:
            self.supplier.interrupt()
            return
        for task in self.at_work:
            task.cancel()


class SourceSet:
    """A device's sources in the order of preference."""

    def __init__(
        self,
        suppliers: Sequence[Supplier],
        limits: ChoiceLimits,
        slow_window_s: float,
        clock: Clock,
        random: Random,
        refused: Callable[[ErrorCode, str], None] = lambda _code, _detail: None,
    ) -> None:
        """Make it.

        Args:
            suppliers: The preferred first; at least one.
            slow_window_s: What rates are averaged over, of time in which chunks were waited for.
            refused: Is told of a source that is too slow: E_SLOW and a sentence.
        """
        self._links = [_Link(supplier, slow_window_s) for supplier in suppliers]
        unexpected = {n for n, supplier in enumerate(suppliers) if not supplier.is_expected}
        self._choice = SourceChoice(len(suppliers), limits, random, unexpected)
        self._misses = Misses()
        self._clock = clock
        self._refused = refused
        self._reason = ""

    @classmethod
    def of(cls, source: "ChunkSource | SourceSet", random: Random) -> "SourceSet":
        """A set of one."""
        if isinstance(source, SourceSet):
            return source
        return cls([Supplier(source)], ChoiceLimits(), 60.0, SystemClock(), random)

    @property
    def name(self) -> str:
        """The source that is asked at present; empty before the first."""
        return "" if self._choice.current is None else self._links[self._choice.current].name

    @property
    def says(self) -> str:
        """Who is asked and why, for people; empty before the first window."""
        if not self.name:
            return ""
        is_served = any(link.at_work or link.supplier.source.is_ready for link in self._links)
        names = ", ".join(link.name for link in self._links if link.name)
        parts = [f"from {self.name}" if is_served else f"waits for {names}"]
        if self._reason:
            parts.append(self._reason)
        if self._misses:
            parts.append(f"asks again for chunks that did not come: {len(self._misses)}")
        return "; ".join(parts)

    async def ready(self) -> None:
        """Wait until somebody may be asked."""
        while self._choose() is None:
            wait_s = min(LOOK_AGAIN_S, self._choice.next_change(self._clock.monotonic()) or LOOK_AGAIN_S)
            sources = [link.supplier.source for link in self._links]
            waiting = [asyncio.ensure_future(source.ready()) for source in sources if not source.is_ready]
            waiting.append(asyncio.ensure_future(asyncio.sleep(wait_s)))
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for waiter in waiting:
                    waiter.cancel()

    def window_bytes(self, most: int) -> int:
        """Bytes of the next window that keep the link to the present source busy."""
        current = self._choice.current
        return self._links[current or 0].estimate.window_bytes(most)

    async def collect(self, cids: Sequence[str], silence_s: float) -> Supplied:
        """Ask for chunks; those that the present source failed too often for are asked of another."""
        current = self._choose()
        if current is None:
            return Supplied({}, unsent=tuple(cids))
        routes = self._misses.route(cids, current, self._ready())
        parts = await asyncio.gather(*(self._ask(n, part, silence_s) for n, part in routes.items()))
        return Supplied(
            {cid: chunk for part in parts for cid, chunk in part.chunks.items()},
            tuple(cid for part in parts for cid in part.lost),
            tuple(cid for part in parts for cid in part.unsent),
            {cid: n for part in parts for cid, n in part.by.items()},
        )

    def spoiled(self, cids: Iterable[str], supplied: Supplied) -> None:
        """These came and were not what was signed."""
        for cid in cids:
            source = supplied.by[cid]
            # The first two times it was wanted; whoever mends it has had time for that.
            if self._misses.spoiled(cid, source) > ELSEWHERE_AFTER + 1 and self._is_nowhere(cid, source):
                self._leave_broker(source, "its chunks are not what was signed")

    def settled(self, cids: Iterable[str]) -> None:
        """These are verified, or not needed any more."""
        self._misses.settled(cids)

    async def release(self) -> None:
        """Nothing more is asked for at present."""
        for link in self._links:
            await link.supplier.source.release()

    def watch(self) -> None:
        """Leave who is too slow; called a few times a second."""
        now = self._clock.monotonic()
        for n, link in enumerate(self._links):
            if not link.at_work:
                continue
            link.measure()
            rate = link.floor.judge(now)
            if rate is not None:
                floor = f"{link.floor.min_rate_bytes_s} B/s over {link.floor.window_s:g} s"
                said = f"chunks from {link.name}: expected at least {floor}, found {rate:.1f}"
                self._refused(ErrorCode.SLOW, f"{said}; {self._leave(n, 'its chunks come too slowly')}")

    async def _ask(self, n: int, cids: Sequence[str], silence_s: float) -> Supplied:
        link = self._links[n]
        asked = Asked(self._clock.monotonic(), link.received_bytes)
        task = asyncio.ensure_future(link.supplier.source.collect(cids, silence_s))
        if not link.at_work:
            link.seen_bytes = asked.received_bytes
            link.floor.asked(asked.at)
        link.at_work.add(task)
        try:
            await asyncio.wait({task})
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            collected = Collected({}, gone=True) if task.cancelled() else task.result()
            link.counted_bytes += sum(map(len, collected.chunks.values()))
            link.measure()
            link.at_work.discard(task)
            if not link.at_work:
                link.floor.rested(self._clock.monotonic())
        return self._answered(n, asked, cids, collected)

    def _answered(self, n: int, asked: Asked, cids: Sequence[str], collected: Collected) -> Supplied:
        link, asked_for = self._links[n], set(cids)
        came = {cid: chunk for cid, chunk in collected.chunks.items() if cid in asked_for}
        absent = tuple(cid for cid in cids if cid not in came)
        # One that is asked for what another has not got is not judged by it.
        is_failing = n == self._choice.current and self._choice.answered(n, came=len(came))
        if not absent:
            now = self._clock.monotonic()
            link.estimate.answered(asked, now, link.received_bytes, collected.delay_s)
        elif collected.gone:
            link.estimate.forget()
            link.floor.forget()
        lost = () if collected.gone else absent
        for cid in lost:
            self._misses.missed(cid, n)
        if is_failing and self._others(n):
            log.info("source gave nothing", source=link.name, instead=self._leave(n, "nothing comes"))
        elif any(self._is_nowhere(cid, n) for cid in lost):
            self._leave_broker(n, "chunks do not come")
        return Supplied(came, lost, absent if collected.gone else (), dict.fromkeys(came, n))

    def _leave(self, n: int, why: str) -> str:
        """Leave a source; what is done instead, for people."""
        if self._others(n):
            self._choice.failed(n, self._clock.monotonic())
            self._reason = f"{self._links[n].name} was left: {why}"
            self._links[n].interrupt()
            return "another source is asked"
        return "another broker is tried" if self._leave_broker(n, why) else "there is no other"

    def _leave_broker(self, n: int, why: str) -> bool:
        leave = self._links[n].supplier.leave
        if leave is None or not leave(why):
            return False
        self._misses.renewed(n)
        self._reason = f"a broker was left: {why}"
        return True

    def _is_nowhere(self, cid: str, n: int) -> bool:
        return self._misses.is_nowhere(cid, n, self._ready())

    def _others(self, n: int) -> bool:
        return self._choice.others(n, self._ready(), self._clock.monotonic())

    def _ready(self) -> list[bool]:
        return [link.supplier.source.is_ready for link in self._links]

    def _choose(self) -> int | None:
        former = self._choice.current
        chosen = self._choice.choose(self._ready(), self._clock.monotonic())
        if chosen is not None and chosen != former and former is not None:
            if not self._links[former].supplier.source.is_ready:
                self._reason = f"{self._links[former].name} was left: it is not there"
            if chosen == 0:
                self._reason = ""  # all is as preferred
            log.info("source changed", source=self._links[chosen].name, former=self._links[former].name)
        return chosen
