"""Modelled devices: when they have a link, what happens to their updates, and what they say of it.

Times are seconds of virtual time since the simulation began. Everything random comes from one passed-in ``Random``,
drawn in the order of events.
"""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from functools import cache
from itertools import accumulate, chain
from math import log
from random import Random

from orchestrator.model.failure import FailureClass
from orchestrator.model.plan import RolloutSpec
from orchestrator.rollouts.simulation.habits import MODELLED, Habits, Hours
from protocol.errors import ErrorCode
from protocol.reports import Progress, Readiness, Reason, StateReport
from protocol.states import Phase, State

MAX_DEVICES = 2**22
_ROLLOUT = "r-1"
_LATENCY_S = 0.2


class Step(IntEnum):
    """Where an update stands on a modelled device."""

    IDLE = 0
    DOWNLOADING = 1
    FETCHED = 2
    CHANGING = 3
    VERIFYING = 4
    DONE = 5


class Says(IntEnum):
    """What a device reports, and what it notices."""

    NOTICES = 0
    READY = 1
    NOT_READY = 2
    DOWNLOADS = 3
    FETCHED = 4
    FETCHED_WAITS = 5
    ASKS = 6
    INSTALLS = 7
    VERIFIES = 8
    SUCCEEDED = 9
    FAILED_DOWNLOAD = 10
    REJECTED = 11
    FAILED_INSTALL = 12
    FAILED_HEALTH = 13
    DECLINED = 14
    CANCELLED = 15


OF_FAILURE = {
    FailureClass.DOWNLOAD: Says.FAILED_DOWNLOAD,
    FailureClass.VERIFY: Says.REJECTED,
    FailureClass.INSTALL: Says.FAILED_INSTALL,
    FailureClass.HEALTH: Says.FAILED_HEALTH,
    FailureClass.DECLINED: Says.DECLINED,
}
_STATES: dict[Says, tuple[State, ErrorCode | None]] = {
    Says.FETCHED: (State.FETCHED, None),
    Says.FETCHED_WAITS: (State.FETCHED, None),
    Says.INSTALLS: (State.INSTALLING, None),
    Says.VERIFIES: (State.VERIFYING, None),
    Says.SUCCEEDED: (State.SUCCEEDED, None),
    Says.FAILED_DOWNLOAD: (State.FAILED, ErrorCode.CHUNK),
    Says.REJECTED: (State.REJECTED, ErrorCode.SIGNATURE),
    Says.FAILED_INSTALL: (State.ROLLED_BACK, ErrorCode.INSTALL),
    Says.FAILED_HEALTH: (State.ROLLED_BACK, ErrorCode.HEALTH),
    Says.DECLINED: (State.DECLINED, None),
    Says.CANCELLED: (State.CANCELLED, None),
}


@cache
def report_of(says: Says, attempt: int) -> Readiness | StateReport | Progress:
    """The report; every device's is alike but for its name, which nothing here is decided on."""
    nonce = f"simulated-{attempt:02}-{says:02}"
    head = {
        "fleet": "simulated", "issued": datetime(2026, 1, 1, tzinfo=UTC), "device": "simulated", "session": 1,
        "seq": 1, "rollout": _ROLLOUT, "nonce": nonce,
    }  # fmt: skip
    if says is Says.DOWNLOADS:
        return Progress(rollout=_ROLLOUT, state=State.DOWNLOADING, attempt=attempt, percent=0)
    if says in (Says.READY, Says.NOT_READY):
        reasons = [] if says is Says.READY else [Reason(gate="power", code="battery_low", retry_after_s=600)]
        return Readiness.model_validate({**head, "phase": Phase.DOWNLOAD, "ready": not reasons, "reasons": reasons})
    if says is Says.ASKS:
        return Readiness.model_validate({**head, "attempt": attempt, "phase": Phase.INSTALL, "ready": True})
    state, code = _STATES[says]
    phase = Phase.INSTALL if state is State.FETCHED else None
    waits = [Reason(gate="in_use", code="in_use")] if says is Says.FETCHED_WAITS else []
    return StateReport.model_validate(
        {**head, "attempt": attempt, "state": state, "code": code, "phase": phase, "reasons": waits}
    )


@dataclass(slots=True)
class Modelled:
    """One device.

    Attributes:
        east_s: Its time zone.
        day: Hours in which it is switched on; None: always.
        working: Hours in which people use it; None: never.
        has_link, until_s: Whether it has one now, and until when.
        fate: How the attempt that is under way will fail; None where it succeeds.
        said, heard: Numbers of its newest report, and of the newest one that arrived.
    """

    name: str
    east_s: float
    rate_bytes_s: float
    day: Hours | None
    working: Hours | None
    has_link: bool = True
    until_s: float = 0.0
    step: Step = Step.IDLE
    attempt: int = 0
    fate: FailureClass | None = None
    said: int = 0
    heard: int = 0


class Nature:
    """What happens to devices: links that come and go, luck and time."""

    def __init__(self, habits: Habits, random: Random, midnight_s: float) -> None:
        """Begin.

        Args:
            midnight_s: Seconds since midnight, UTC, when the simulation begins.
        """
        self.habits, self.random, self._midnight_s = habits, random, midnight_s
        self._off_s = habits.spell_s
        self._on_s = habits.spell_s * (1 - habits.offline) / habits.offline if habits.offline else 0.0
        self._bounds = list(accumulate(habits.failures.get(kind, 0.0) for kind in MODELLED))

    def fate(self) -> FailureClass | None:
        """How an attempt fails, if it does."""
        if not self._bounds[-1]:
            return None
        found = bisect_right(self._bounds, self.random.random())
        return MODELLED[found] if found < len(MODELLED) else None

    def after(self, mean_s: float) -> float:
        """A time that is ``mean_s`` on average, and never long before another."""
        return mean_s * (0.5 + self.random.random())

    def online_at(self, device: Modelled, at_s: float) -> float:
        """When it has a link, from ``at_s`` on."""
        while True:
            link_s = self._link_at(device, at_s) if self._on_s else at_s
            day_s = link_s + (device.day.wait_s(self.local_s(device, link_s)) if device.day else 0.0)
            if day_s == link_s:
                return link_s
            at_s = day_s + 1e-3

    def _link_at(self, device: Modelled, at_s: float) -> float:
        while device.until_s <= at_s:
            if device.until_s == 0.0:  # it was so for long
                device.has_link = self.random.random() >= self.habits.offline
            else:
                device.has_link = not device.has_link
            mean_s = self._on_s if device.has_link else self._off_s
            device.until_s += -mean_s * log(1.0 - self.random.random()) or 1e-3
        return at_s if device.has_link else device.until_s

    def fetched_at(self, device: Modelled, at_s: float, size_bytes: float) -> float:
        """When a download that begins now is done; it rests while there is no link."""
        left_s = size_bytes / device.rate_bytes_s
        while True:
            at_s = self.online_at(device, at_s)
            run_s = left_s if not self._on_s else min(left_s, device.until_s - at_s)
            if device.day is not None:
                run_s = min(run_s, device.day.left_s(self.local_s(device, at_s)))
            left_s -= run_s
            at_s += run_s
            if left_s <= 1e-3:
                return at_s
            at_s += 1e-3

    def installable_at(self, device: Modelled, at_s: float) -> float:
        """When it may be changed: within the window, and not in use."""
        while True:
            local_s = self.local_s(device, at_s)
            wait_s = self.habits.window.wait_s(local_s) if self.habits.window else 0.0
            if not wait_s and device.working is not None:
                wait_s = device.working.left_s(local_s)
            if not wait_s:
                return at_s
            at_s += wait_s + 1e-3

    def heard_at(self, device: Modelled, at_s: float) -> float:
        """When what it says then is heard: it says it again until then."""
        at_s = self.online_at(device, at_s + _LATENCY_S)
        while self.habits.lost and self.random.random() < self.habits.lost:
            at_s = self.online_at(device, at_s + self.habits.repeat_s)
        return at_s

    def local_s(self, device: Modelled, at_s: float) -> float:
        """Local time in seconds; only its time of the day means something."""
        return self._midnight_s + at_s + device.east_s


def make_devices(count: int, spec: RolloutSpec, habits: Habits, random: Random) -> list[Modelled]:
    """Devices with names, links and hours; those that the plan names are among the first."""
    listed = chain(spec.members.devices or (), *(stage.devices or () for stage in spec.stages))
    names = list(dict.fromkeys(listed))[:count]
    width = max(4, len(str(count)))
    names += [f"d-{number:0{width}}" for number in range(1, count - len(names) + 1)]
    found: list[Modelled] = []
    for number, name in enumerate(names):
        zone = habits.zones_h[number % habits.sites % len(habits.zones_h)]
        rate = habits.rate_bytes_s * random.lognormvariate(0, habits.rate_spread)
        at_night = random.random() < habits.off_at_night
        used = random.random() < habits.in_use
        found.append(
            Modelled(name, zone * 3600, rate, habits.day if at_night else None, habits.working if used else None)
        )
    return found
