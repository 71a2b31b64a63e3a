"""What a simulation came to: devices by state over time, stages, rules, permits; and a hash of all that happened."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.model.assignment import Assignment
from orchestrator.model.rollout import Rollout, Stage
from orchestrator.rollouts.facts import Happening
from protocol.status_messages import RuleFigure

MAX_SAMPLES = 240
BANDS = ("waiting", "downloading", "fetched", "changing", "succeeded", "failed", "other")
"""States of devices as people tell them apart, from the last to be reached upwards."""
_BAND_OF = {
    "pending": "waiting", "offered": "waiting", "waiting": "waiting", "evaluating": "waiting",
    "downloading": "downloading", "fetched": "fetched", "installing": "changing", "installed": "changing",
    "activating": "changing", "verifying": "changing", "committing": "changing", "rolling_back": "changing",
    "succeeded": "succeeded", "failed": "failed", "rejected": "failed", "rolled_back": "failed",
    "inconsistent": "failed", "timed_out": "failed", "unsettled": "failed",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment: seconds since the start, and devices by band."""

    at_s: float
    bands: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Happened:
    """A decision in words."""

    at_s: float
    kind: str
    text: str


@dataclass(slots=True)
class Trace:
    """Filled while it goes on.

    Attributes:
        figures: By rule, (seconds, figure) whenever it changed.
        most_held: By scope, the most permits that were held at once.
        most_per_minute: Offers within one minute of the clock, at most.
        digest: sha256 over every change of a device and every decision.
    """

    begin: datetime
    interval_s: float
    samples: list[Sample] = field(default_factory=list)
    happenings: list[Happened] = field(default_factory=list)
    figures: dict[str, list[tuple[float, RuleFigure]]] = field(default_factory=dict)
    most_held: Counter[str] = field(default_factory=Counter)
    offers: Counter[int] = field(default_factory=Counter)
    rollout: Rollout | None = None
    stages: Sequence[Stage] = ()
    members: int = 0
    end_s: float = 0.0
    looks: int = 0
    reports: int = 0
    _hash: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    @property
    def digest(self) -> str:
        """Hex."""
        return self._hash.hexdigest()

    @property
    def most_per_minute(self) -> int:
        """Offers within one minute of the clock, at most."""
        return max(self.offers.values(), default=0)

    def moved(self, at_s: float, after: Assignment) -> None:
        """A device's place changed."""
        self._hash.update(f"{at_s:.3f} {after.device} {after.attempt} {after.state} {after.grant}\n".encode())

    def offered(self, at_s: float, number: int) -> None:
        """Offers were made."""
        self.offers[int(at_s // 60)] += number

    def held(self, permits: Mapping[str, int]) -> None:
        """Permits that are held now."""
        for scope, number in permits.items():
            self.most_held[scope] = max(self.most_held[scope], number)

    def happened(self, at_s: float, happenings: Sequence[Happening]) -> None:
        """The engine decided something."""
        for one in happenings:
            self._hash.update(f"{at_s:.3f} {one.kind} {one.text}\n".encode())
            self.happenings.append(Happened(at_s, one.kind, one.text))

    def judged(self, at_s: float, figures: Sequence[tuple[int, RuleFigure]], stages: Sequence[Stage]) -> None:
        """How rules stand; kept where a figure changed, and thinned out with the samples."""
        for position, figure in figures:
            known = self.figures.setdefault(f"{stages[position].name}: {figure.rule}", [])
            if not known or (known[-1][1] != figure and at_s - known[-1][0] >= self.interval_s):
                known.append((at_s, figure))

    def sample(self, at_s: float, counts: Mapping[int, Mapping[str, int]], *, last: bool = False) -> None:
        """Devices by state, once an interval; fewer where there are too many."""
        if not last and self.samples and at_s - self.samples[-1].at_s < self.interval_s:
            return
        bands: Counter[str] = Counter()
        for stage in counts.values():
            for key, number in stage.items():
                if key.startswith("state:"):
                    bands[_BAND_OF.get(key.removeprefix("state:"), "other")] += number
        self.samples.append(Sample(at_s, {band: bands[band] for band in BANDS}))
        if len(self.samples) > 2 * MAX_SAMPLES:
            self.samples = self.samples[::2]
            self.interval_s *= 2
