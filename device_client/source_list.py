"""Which sources this device has, the preferred first, each behind the owner's word on metered links."""

import ssl
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Protocol

from device_client import connection_sets
from device_client.clock import FlooredClock
from device_client.config import DeviceHome, DeviceSettings
from device_client.config_network import NetworkSection, SourceSection
from device_client.download.directory_source import DirectorySource
from device_client.download.https_lines import HttpsSettings
from device_client.download.https_source import HttpsSource
from device_client.download.metered_source import MeteredSource
from device_client.download.sources import ChunkSource
from device_client.identity_files import IdentityFiles
from device_client.metered_bytes import MeteredBytes
from device_client.network import Links
from device_client.network_manager import MeteredLinks
from device_client.system_bus import SystemBus
from protocol.enrolment import MirrorAddress
from protocol.mqtt.tls import mirror_context

BROKER = SourceSection(kind="mqtt")
_NO_LINKS = NetworkSection()


def sections(settings: DeviceSettings, mirrors: Sequence[MirrorAddress]) -> tuple[SourceSection, ...]:
    """What ``device.toml`` names; where it names nothing, the broker, then the mirrors that the fleet signed."""
    signed = (SourceSection(kind="https", url=one.url, ca=one.ca) for one in mirrors)
    return settings.download.sources or (BROKER, *signed)


class MeasuredSource(ChunkSource, Protocol):
    """A source that comes over a link."""

    @property
    def received_bytes(self) -> int:
        """Bytes that it read since it was made, of use or not."""
        ...

    def interrupt(self) -> None:
        """End its windows with what came so far."""
        ...


class SourceMaker:
    """Makes sources out of their sections. What they share: the links, and one allowance of the day.

    Attributes:
        metered_links: What NetworkManager says; None where it is not to be asked.
    """

    def __init__(
        self,
        home: DeviceHome,
        settings: DeviceSettings,
        broker: MeasuredSource,
        clock: FlooredClock,
        random: Random,
    ) -> None:
        """Reads what was spent today. Blocking.

        Args:
            broker: The chunk topics of the agent's connection.
            clock: By which days begin and certificates are judged.
        """
        self._home = home
        self._settings = settings
        self._broker = broker
        self._clock = clock
        self._random = random
        self.metered_links = _metered_links(settings)
        self._links = Links(settings.network, *([self.metered_links.is_metered] if self.metered_links else []))
        self._allowance = MeteredBytes(home.metered, settings.network.metered_bytes_per_day, clock)

    def make(self, section: SourceSection) -> MeteredSource:
        """The source of a section."""
        match section.kind:
            case "mqtt":
                return self._watched(section, self._broker)
            case "directory":
                assert section.path is not None
                medium = DirectorySource(section.path)
                return MeteredSource(medium, Links(_NO_LINKS), self._allowance, trouble=lambda: medium.trouble)
            case "https":
                mirror = self._mirror(section)
                return self._watched(section, mirror, trouble=lambda: mirror.trouble)

    def _watched(
        self,
        section: SourceSection,
        source: MeasuredSource,
        trouble: Callable[[], str] = lambda: "",
    ) -> MeteredSource:
        return MeteredSource(
            source,
            self._links,
            self._allowance,
            interface=section.interface,
            allow_metered=section.allow_metered,
            look_again_s=self._settings.timing.gate_interval_s,
            trouble=trouble,
            received=lambda: source.received_bytes,
            interrupt=source.interrupt,
        )

    def _mirror(self, section: SourceSection) -> HttpsSource:
        assert section.url is not None
        timing = self._settings.timing
        bounds = HttpsSettings(
            interface=section.interface,
            elsewhere=section.ca == "system",
            connect_timeout_s=self._settings.broker.timeout_s,
            request_timeout_s=timing.request_timeout_s,
            retry_base_s=timing.connect_backoff_s,
            retry_cap_s=timing.connect_backoff_cap_s,
        )
        return HttpsSource(section.url, partial(self._context, section), bounds, self._clock, self._random)

    def _context(self, section: SourceSection, own: bool) -> ssl.SSLContext:
        """TLS as it must be now: the CA and this device's certificate may be others than at the last time."""
        files = IdentityFiles(self._home)
        identity = (files.certificate, files.device_key) if own and section.client_certificate else None
        ca = connection_sets.present(self._home).ca if section.ca == "fleet" else None
        return mirror_context(ca, identity, check_time=not self._clock.doubt)


def _metered_links(settings: DeviceSettings) -> MeteredLinks | None:
    if settings.network.metered_from != "networkmanager":
        return None
    tied = frozenset(source.interface for source in settings.download.sources)
    return MeteredLinks(SystemBus(settings.gates.bus), tied, unknown=settings.gates.unknown == "wait")
