"""Who takes part, and why not who does not. Pure: facts in, an answer per device out, quick enough for a million."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from orchestrator.model.candidate import Candidate
from orchestrator.model.device import DeviceState
from orchestrator.model.plan import Members
from orchestrator.model.selector import Selector
from protocol.manifest import ReleaseInfo

Groups = Mapping[str, frozenset[str]]
"""Device ids by group name."""
Compare = Callable[[str, str], int]
"""Below 0 where the first version is the older one, 0 where they are equal in order."""
Scopes = tuple[str, ...]
EXAMPLES = 5
"""Devices that are named for each reason."""
_KNOWN_FITS = 20_000
"""Answers that are kept by what devices are and run: a fleet has few kinds of devices."""


@dataclass(frozen=True, slots=True)
class Place:
    """A member's stage, and its place in the order inside it.

    Attributes:
        order: From 0 up to 1; the lower comes first.
        site: The label ``site``; "" without it.
        scopes: Of ``max_unavailable``: ``LABEL=value`` (nothing behind the sign where the label is missing), or
            ``group:NAME``.
    """

    device: str
    stage: int
    order: float
    site: str = ""
    scopes: Scopes = ()


class Exclusion(StrEnum):
    """Why a device takes no part; the first that applies, in this order."""

    NOT_IN_GROUP = "not_in_group"
    NOT_SELECTED = "not_selected"
    NOT_LISTED = "not_listed"
    NOT_REVERTED = "not_reverted"
    CLOSED = "closed"
    DUPLICATE = "duplicate"
    OTHER_PRODUCT = "other_product"
    OTHER_HARDWARE = "other_hardware"
    CURRENT = "current"
    REQUIRES = "requires"
    CONFLICTS = "conflicts"
    SKIPS = "skips_a_release"
    QUARANTINED = "quarantined"
    ELSEWHERE = "elsewhere"


SENTENCES = {
    Exclusion.NOT_IN_GROUP: "not in the group of the plan",
    Exclusion.NOT_SELECTED: "the plan's selector does not match",
    Exclusion.NOT_LISTED: "not in the plan's list of devices",
    Exclusion.NOT_REVERTED: "did not come from this release in the rollout that is reverted",
    Exclusion.CLOSED: "revoked or retired",
    Exclusion.DUPLICATE: "two live devices speak under this id",
    Exclusion.OTHER_PRODUCT: "another product",
    Exclusion.OTHER_HARDWARE: "hardware that the release is not for",
    Exclusion.CURRENT: "runs the release already",
    Exclusion.REQUIRES: "another component has not the version that the release requires",
    Exclusion.CONFLICTS: "a component has a version that the release conflicts with",
    Exclusion.SKIPS: "must pass through an earlier release first",
    Exclusion.QUARANTINED: "this very release was rolled back there, or left it inconsistent",
    Exclusion.ELSEWHERE: "has an open part in another rollout of the same release",
}


class Excluded(NamedTuple):
    """Why one device takes no part."""

    reason: Exclusion
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is held against devices.

    Attributes:
        info: Of the release that is rolled out.
        published: Every published release of the product; those that must be passed through count.
        groups: Those that the plan names.
        quarantined: By device, since when this release is set aside there.
        elsewhere: By device, another rollout of this release in which it has an open part.
        reverted: Devices that go back by this plan; None where it does not take another one back.
    """

    info: ReleaseInfo
    compare: Compare
    published: tuple[ReleaseInfo, ...] = ()
    groups: Groups = field(default_factory=dict)
    quarantined: Mapping[str, datetime] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    reverted: Collection[str] | None = None


class Judge:
    """Says of each device whether it takes part."""

    def __init__(self, members: Members, facts: Facts) -> None:
        self._facts = facts
        self._group_name = members.group
        self._group = facts.groups[members.group] if members.group else None
        self._selects = Selector.parse(members.selector).compiled() if members.selector else None
        self._listed = frozenset(members.devices) if members.devices else None
        self._must_pass = _must_pass(facts)
        self._fits: dict[tuple[str, str, str], Excluded | None] = {}

    def exclude(self, device: Candidate) -> Excluded | None:
        """Why this device takes no part; None where it does."""
        if self._group is not None and device.id not in self._group:
            return Excluded(Exclusion.NOT_IN_GROUP, f"is not in group {self._group_name}")
        if self._selects is not None and not self._selects(device):
            return _NOT_SELECTED
        if self._listed is not None and device.id not in self._listed:
            return _NOT_LISTED
        if self._facts.reverted is not None and device.id not in self._facts.reverted:
            return _NOT_REVERTED
        if device.state != DeviceState.ENROLLED:
            return Excluded(Exclusion.CLOSED, f"is {device.state}")
        if device.duplicate:
            return _DUPLICATE
        kind = (device.product, device.hardware, device.components_text)
        try:
            found = self._fits[kind]
        except KeyError:
            if len(self._fits) >= _KNOWN_FITS:
                self._fits.clear()
            found = self._fits[kind] = self._misfit(device)
        return found or self._set_aside(device.id)

    def _misfit(self, device: Candidate) -> Excluded | None:
        """Why the release is not for what this device is and runs."""
        info = self._facts.info
        if device.product != info.product:
            return Excluded(Exclusion.OTHER_PRODUCT, f"is a {device.product}, the release is for {info.product}")
        if device.hardware not in info.hardware:
            return Excluded(
                Exclusion.OTHER_HARDWARE, f"is {device.hardware}, the release is for {', '.join(info.hardware[:5])}"
            )
        runs = device.components
        running = runs.get(info.component)
        if running == info.version:
            return Excluded(Exclusion.CURRENT, f"runs {info.component} {running} already")
        for component, version in info.requires.items():
            if runs.get(component) != version:
                return Excluded(
                    Exclusion.REQUIRES, f"needs {component} {version} first, runs {runs.get(component, 'none')}"
                )
        for component, version in info.conflicts.items():
            if runs.get(component) == version:
                return Excluded(Exclusion.CONFLICTS, f"runs {component} {version}, which the release does not go with")
        if running is not None:
            return self._to_pass(running, device.hardware)
        return None

    def _to_pass(self, running: str, hardware: str) -> Excluded | None:
        compare = self._facts.compare
        for step in self._must_pass:
            if hardware in step.hardware and compare(running, step.version) < 0:
                return Excluded(
                    Exclusion.SKIPS,
                    f"runs {step.component} {running} and must pass through {step.product}/{step.version} first",
                )
        return None

    def _set_aside(self, device: str) -> Excluded | None:
        since = self._facts.quarantined.get(device)
        if since is not None:
            return Excluded(Exclusion.QUARANTINED, f"is quarantined for this release since {since:%Y-%m-%d %H:%M} UTC")
        other = self._facts.elsewhere.get(device)
        if other is not None:
            return Excluded(Exclusion.ELSEWHERE, f"has an open part in rollout {other} of the same release")
        return None


_NOT_SELECTED = Excluded(Exclusion.NOT_SELECTED, "is not matched by the plan's selector")
_NOT_REVERTED = Excluded(Exclusion.NOT_REVERTED, "did not come from this release in the rollout that is reverted")
_NOT_LISTED = Excluded(Exclusion.NOT_LISTED, "is not in the plan's list")
_DUPLICATE = Excluded(Exclusion.DUPLICATE, "is one of two live devices under this id")


def _must_pass(facts: Facts) -> list[ReleaseInfo]:
    """Releases that a device below them cannot skip on its way to this one."""
    info = facts.info
    return [
        step
        for step in facts.published
        if step.must_pass_through
        and (step.product, step.component) == (info.product, info.component)
        and facts.compare(step.version, info.version) < 0
    ]


@dataclass(frozen=True, slots=True)
class Exclusions:
    """How many take no part, by reason, and some of them by name: as large for ten as for a million."""

    counts: Counter[Exclusion] = field(default_factory=Counter)
    examples: dict[Exclusion, list[tuple[str, str]]] = field(default_factory=dict)

    def add(self, device: str, excluded: Excluded) -> None:
        """Count one."""
        self.counts[excluded.reason] += 1
        named = self.examples.setdefault(excluded.reason, [])
        if len(named) < EXAMPLES:
            named.append((device, excluded.sentence))

    def __str__(self) -> str:
        return ", ".join(f"{count}: {SENTENCES[reason]}" for reason, count in self.counts.most_common(3))


def some(names: Iterable[str], number: int = 3) -> str:
    """The first few names, and how many more there are."""
    known = list(names)
    more = f" and {len(known) - number} more" if len(known) > number else ""
    return ", ".join(known[:number]) + more
