"""What modelled devices are like: how often they have a link, fail, are in use. Shares are of all devices."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from orchestrator.model.failure import FailureClass

DAY_S, HOUR_S = 86_400.0, 3600.0
MODELLED = (
    FailureClass.DOWNLOAD,
    FailureClass.VERIFY,
    FailureClass.INSTALL,
    FailureClass.HEALTH,
    FailureClass.SILENT,
    FailureClass.DECLINED,
)
"""Failures that are drawn; what times out and what is rolled back follows from these and from the plan."""


@dataclass(frozen=True, slots=True)
class Hours:
    """Daily hours, local; ``end`` before ``start`` goes past midnight."""

    start_s: float
    end_s: float

    def wait_s(self, local_s: float) -> float:
        """Seconds until they begin; 0 within them.

        Args:
            local_s: Any local time in seconds.
        """
        since = (local_s - self.start_s) % DAY_S
        return 0.0 if since < (self.end_s - self.start_s) % DAY_S else DAY_S - since

    def left_s(self, local_s: float) -> float:
        """Seconds until they end; 0 outside of them."""
        return max(0.0, (self.end_s - self.start_s) % DAY_S - (local_s - self.start_s) % DAY_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How devices behave.

    Attributes:
        failures: By class, the share of attempts that end so.
        offline: Share of the time that a device has no link, in spells of ``spell_s`` on average.
        off_at_night: Share of devices that are switched off outside of ``day``.
        in_use: Share of devices that people use within ``working``; they wait with the installation.
        window: Hours in which devices may install; None: always.
        unready: Share of readiness reports that say no (battery, disk), for ``unready_s`` on average.
        lost, repeated: Share of reports that are lost (said again after ``repeat_s``), or come twice.
        zones_h: Time zones, as hours east of UTC; sites are spread over them.
        image_bytes: What a device fetches.
        rate_bytes_s, rate_spread: Of a link: median, and the standard deviation of its logarithm.
        react_s: How long a device takes to answer, on average.
        approve_s: How long a person takes to open the next stage where the plan wants one.
        groups, labels: Share of devices in a group, or with ``LABEL=VALUE``.
    """

    failures: Mapping[FailureClass, float] = field(default_factory=lambda: MappingProxyType({}))
    offline: float = 0.05
    spell_s: float = 4 * HOUR_S
    off_at_night: float = 0.0
    day: Hours = Hours(6 * HOUR_S, 22 * HOUR_S)
    in_use: float = 0.0
    working: Hours = Hours(8 * HOUR_S, 18 * HOUR_S)
    window: Hours | None = None
    unready: float = 0.05
    unready_s: float = 2 * HOUR_S
    lost: float = 0.01
    repeated: float = 0.01
    repeat_s: float = 900.0
    sites: int = 20
    zones_h: tuple[float, ...] = (0.0,)
    image_bytes: int = 100_000_000
    rate_bytes_s: float = 1e6
    rate_spread: float = 1.0
    react_s: float = 5.0
    install_s: float = 60.0
    verify_s: float = 30.0
    approve_s: float = HOUR_S
    groups: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    labels: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


def seconds_of_day(at: datetime) -> float:
    """Since midnight."""
    return at.hour * HOUR_S + at.minute * 60 + at.second + at.microsecond / 1e6
