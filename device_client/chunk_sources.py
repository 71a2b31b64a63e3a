"""Where this device's chunks come from: one set of sources, made anew where the fleet signed other mirrors.

What each source is, ``source_list`` says; which of them is asked, ``download.source_set`` decides.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from device_client import connection_sets
from device_client.clock import FlooredClock
from device_client.config import DeviceHome, DeviceSettings
from device_client.config_network import SourceSection
from device_client.download.medium_source import MediumSource
from device_client.download.metered_source import MeteredSource
from device_client.download.mqtt_source import MqttSource
from device_client.download.source_choice import ChoiceLimits
from device_client.download.source_set import SourceSet, Supplier
from device_client.source_list import SourceMaker, sections
from protocol.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class SourceStanding:
    """One source as people see it: ``trouble`` is why it is not asked, or what went wrong with it last."""

    name: str
    is_ready: bool
    trouble: str


class ChunkSources:
    """One device's. Making it blocks for a moment."""

    def __init__(
        self,
        home: DeviceHome,
        settings: DeviceSettings,
        broker: MqttSource,
        leave: Callable[[str], bool],
        refused: Callable[[ErrorCode, str], None],
        clock: FlooredClock,
        random: Random,
        medium: MediumSource | None = None,
    ) -> None:
        """Make the sources.

        Args:
            broker: The chunk topics of the agent's connection.
            leave: Ends that connection, told why, where there is another broker to go to; says whether there is.
            refused: Is told of a source that is too slow.
            medium: The place for what people hand in; asked first, while something is there.
        """
        self._medium = medium
        self._home = home
        self._settings = settings
        self._leave = leave
        self._refused = refused
        self._clock = clock
        self._random = random
        self._maker = SourceMaker(home, settings, broker, clock, random)
        self._sections = self._named()
        self._sources, self._set = self._make()

    async def present(self) -> SourceSet:
        """The set, for a download that begins: with the mirrors that are signed now."""
        named = await asyncio.to_thread(self._named)
        if named != self._sections:
            await self._set.release()
            self._sections = named
            self._sources, self._set = self._make()
        return self._set

    def watch(self) -> None:
        """Leave who is too slow; called a few times a second."""
        self._set.watch()

    async def watch_links(self) -> None:
        """Ask again and again which links are metered, until cancelled; done at once where nobody is to be asked."""
        while (links := self._maker.metered_links) is not None:
            await asyncio.to_thread(links.ask)
            await asyncio.sleep(self._settings.timing.gate_interval_s)

    def barred(self) -> list[str]:
        """By source, why the owner's word on metered links forbids to ask it; empty where it does not."""
        free = [""] if self._medium is not None and self._medium.is_ready else []  # a medium costs nothing
        return [source.barred for source in self._sources] + free

    def standings(self) -> list[SourceStanding]:
        """Every source, the preferred first."""
        every: list[MediumSource | MeteredSource] = [*self._sources]
        if self._medium is not None and self._medium.name:
            every.insert(0, self._medium)
        return [SourceStanding(source.name, source.is_ready, source.trouble) for source in every]

    def _named(self) -> tuple[SourceSection, ...]:
        return sections(self._settings, connection_sets.present(self._home).mirrors)

    def _make(self) -> tuple[list[MeteredSource], SourceSet]:
        download, timing = self._settings.download, self._settings.timing
        sources = [self._maker.make(section) for section in self._sections]
        suppliers = [self._supplier(section, source) for section, source in zip(self._sections, sources, strict=True)]
        if self._medium is not None:  # a download that is under way goes on with it when it is handed in
            suppliers.insert(0, Supplier(self._medium, is_expected=False))
        limits = ChoiceLimits(download.return_after_s, timing.chunk_timeout_s)
        made = SourceSet(suppliers, limits, download.slow_window_s, self._clock, self._random, self._refused)
        return sources, made

    def _supplier(self, section: SourceSection, source: MeteredSource) -> Supplier:
        floor, leave = section.min_rate_bytes_s, None
        if section.kind == "mqtt":
            floor, leave = floor or self._settings.download.min_rate_bytes_s, self._leave
        return Supplier(source, floor, received=source.received, interrupt=source.interrupt, leave=leave)
