"""A source that is asked only while its link may be used for it: metered or not, and how much of the day is left."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from device_client.download.sources import ChunkSource, Collected
from device_client.metered_bytes import MeteredBytes
from device_client.network import Links

log = structlog.get_logger(__name__)


class MeteredSource:
    """Another source, and the owner's word on what it may cost.

    An allowance that ends in the middle of a window is overdrawn by what was on its way, at most two windows.
    """

    def __init__(
        self,
        source: ChunkSource,
        links: Links,
        allowance: MeteredBytes,
        *,
        interface: str = "",
        allow_metered: bool = True,
        look_again_s: float = 5.0,
        trouble: Callable[[], str] = lambda: "",
        received: Callable[[], int] | None = None,
        interrupt: Callable[[], None] | None = None,
    ) -> None:
        """Watch over ``source``.

        Args:
            interface: The one that it is tied to; empty: the default route's.
            look_again_s: How often a link that may not be used is looked at.
            trouble: Why the source itself is not ready, if it knows.
            received: Bytes that it read since it was made, of use or not; without, what it hands out is counted.
            interrupt: Ends the source's windows with what came so far, if it can.
        """
        self._source = source
        self._links = links
        self._allowance = allowance
        self._interface = interface
        self._allow_metered = allow_metered
        self._look_again_s = look_again_s
        self._trouble = trouble
        self.received = received
        self.interrupt = interrupt
        self._counted = received() if received else 0  # the rest was counted when it came
        self._said = ""

    @property
    def name(self) -> str:
        """The source's own name."""
        return self._source.name

    @property
    def is_ready(self) -> bool:
        """Whether there is any use in asking now, and asking is allowed."""
        return not self.barred and self._source.is_ready

    @property
    def trouble(self) -> str:
        """Why it is not asked, in one sentence; empty when it may be."""
        return self.barred or self._trouble()

    @property
    def barred(self) -> str:
        """Why the owner's word forbids to ask it now; empty when it does not."""
        metered = self._links.metered(self._interface)
        if not metered:
            return ""
        if not self._allow_metered:
            return f"interface {metered} is metered, and this source may not be used over it"
        return f"interface {metered} is metered: {self._allowance.says}" if self._allowance.is_used_up else ""

    async def ready(self) -> None:
        """Wait until there is any use in asking and asking is allowed."""
        while True:
            while barred := self.barred:
                self._say(barred)
                await asyncio.sleep(self._look_again_s)
            await self._source.ready()
            if self.is_ready:
                self._say("")
                return
            await asyncio.sleep(0)

    async def collect(self, cids: Sequence[str], silence_s: float) -> Collected:
        """As the source; where its link may not be used now, it counts as gone."""
        if barred := self.barred:
            self._say(barred)
            return Collected({}, gone=True)
        metered = self._links.metered(self._interface)
        collected = Collected({})
        try:
            collected = await self._source.collect(cids, silence_s)
            return collected
        finally:
            self._count(collected, spend=bool(metered))
            if metered:
                await self._allowance.keep()

    async def release(self) -> None:
        """Nothing more is asked for at present."""
        await self._source.release()
        await self._allowance.keep(exactly=True)

    def _count(self, collected: Collected, *, spend: bool) -> None:
        if self.received is None:
            size = sum(len(chunk) for chunk in collected.chunks.values())
        else:
            received = self.received()
            size, self._counted = received - self._counted, received
        if spend:
            self._allowance.spend(size)

    def _say(self, barred: str) -> None:
        if barred != self._said:
            self._said = barred
            log.info("source barred" if barred else "source allowed again", source=self.name, why=barred)
