"""A plan carried out on paper: every member with its stage and its place in the order. Pure.

A member takes some ten bytes beside its id, so that a million of them fit. Inside a stage the order is random and
spread over sites: the k-th of n devices of one site comes at (k + u) / n of the way, u by chance. So whatever share
of the stage has had its turn, it is about the same share of each site.
"""

import math
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Generic, TypeVar

from orchestrator.errors import ConflictError
from orchestrator.model.candidate import Candidate
from orchestrator.model.plan import RolloutSpec, StageSpec, UnavailableLimit
from orchestrator.rollouts.members import Excluded, Exclusions, Groups, Place, Scopes, some
from orchestrator.rollouts.stage_choice import NONE, StageChoice

T = TypeVar("T")


class ScopeReader:
    """Says in which scopes of ``max_unavailable`` a device counts."""

    def __init__(self, limits: Sequence[UnavailableLimit], groups: Groups) -> None:
        self._labels = [limit.label for limit in limits if limit.label is not None]
        self._groups = [(f"group:{limit.group}", groups[limit.group]) for limit in limits if limit.group is not None]

    def read(self, device: Candidate) -> Scopes:
        """The scopes, in the order of the plan, those by label first."""
        if not self._labels and not self._groups:
            return ()
        labels = device.labels
        found = [f"{name}={labels.get(name, '')}" for name in self._labels]
        found += [scope for scope, members in self._groups if device.id in members]
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Plan:
    """Who takes part and where. Columns go by member, in the order of the ids, which is that of their characters."""

    spec: RolloutSpec
    ids: Sequence[str]
    stage_of: "array[int]"
    order_of: "array[float]"
    site_of: "array[int]"
    scopes_of: "array[int]"
    sites: Sequence[str]
    scopes: Sequence[Scopes]
    online: int
    silent: int
    examined: int
    exclusions: Exclusions

    def __len__(self) -> int:
        return len(self.ids)

    def places(self) -> Iterator[Place]:
        """Every member's place, by device id."""
        columns = zip(self.ids, self.stage_of, self.order_of, self.site_of, self.scopes_of, strict=True)
        for device, stage, order, site, scopes in columns:
            yield Place(device, stage, order, self.sites[site], self.scopes[scopes])

    def sizes(self) -> list[int]:
        """Members by stage."""
        counts = Counter(self.stage_of)
        return [counts[position] for position in range(len(self.spec.stages))]

    def by_site(self) -> dict[str, int]:
        """Members by site, the largest first; "" where it is unknown."""
        return {self.sites[site]: count for site, count in Counter(self.site_of).most_common()}

    def has(self, device: str) -> bool:
        """Whether this device is a member."""
        at = bisect_left(self.ids, device)
        return at < len(self.ids) and self.ids[at] == device


@dataclass(slots=True)
class _Names(Generic[T]):
    """Values by number, each kept once."""

    values: list[T] = field(default_factory=list)
    numbers: dict[T, int] = field(default_factory=dict)

    def number(self, value: T) -> int:
        """The value's number, a new one where it was not seen before."""
        found = self.numbers.get(value)
        if found is None:
            found = self.numbers[value] = len(self.values)
            self.values.append(value)
        return found


class Roster:
    """Members as they are found, until they are placed."""

    def __init__(self, spec: RolloutSpec, exclude: Callable[[Candidate], Excluded | None], groups: Groups) -> None:
        self._spec = spec
        self._exclude = exclude
        self._choice = StageChoice(spec.stages, groups)
        self._scope_reader = ScopeReader(spec.max_unavailable, groups)
        self._ids: list[str] = []
        self._named = array("h")  # the first stage that names it
        self._site_of, self._sites = array("I"), _Names[str]()
        self._scopes_of, self._scopes = array("I"), _Names[Scopes]()
        self._exclusions = Exclusions()
        self._examined = self._online = self._silent = 0

    def add(self, devices: Iterable[Candidate]) -> None:
        """Look at more of the fleet; devices come by id, in order."""
        # Once for each of a million devices: what is looked up here once is not looked up there.
        exclude, first, read_scopes = self._exclude, self._choice.first, self._scope_reader.read
        for device in devices:
            self._examined += 1
            excluded = exclude(device)
            if excluded is not None:
                self._exclusions.add(device.id, excluded)
                continue
            self._ids.append(device.id)
            self._named.append(first(device))
            self._site_of.append(self._sites.number(device.site))
            self._scopes_of.append(self._scopes.number(read_scopes(device)))
            self._online += device.online
            self._silent += device.silent

    def place(self, what: str, random: Random) -> Plan:
        """Give every member its stage and its place.

        Percentages are cumulative over all members: a stage of 25 % is filled up to a quarter of the rollout, whatever
        earlier stages took.

        Args:
            what: How refusals begin: ``rollout r-1``.
            random: Not a ``SystemRandom``, which asks the kernel for each of millions of numbers.

        Raises:
            ConflictError: No member, an empty stage, or members that no stage covers.
        """
        if not self._ids:
            why = f"; of {self._examined} devices, {self._exclusions}" if self._examined else ""
            raise ConflictError(
                f"{what}: no member; expected enrolled devices that fit {self._spec.release} and do not run it yet{why}"
            )
        by_chance = array("I", range(len(self._ids)))
        random.shuffle(by_chance)
        stage_of = self._share(what, by_chance)
        return Plan(
            spec=self._spec,
            ids=self._ids,
            stage_of=stage_of,
            order_of=spread(by_chance, stage_of, self._site_of, random),
            site_of=self._site_of,
            scopes_of=self._scopes_of,
            sites=self._sites.values,
            scopes=self._scopes.values,
            online=self._online,
            silent=self._silent,
            examined=self._examined,
            exclusions=self._exclusions,
        )

    def _share(self, what: str, by_chance: "array[int]") -> "array[int]":
        members = len(self._ids)
        stage_of = array("h", [NONE]) * members
        naming: dict[int, array[int]] = {}
        for member in by_chance:
            if self._named[member] != NONE:
                naming.setdefault(self._named[member], array("I")).append(member)
        waiting, placed = iter(by_chance), 0
        for position, stage in enumerate(self._spec.stages):
            before = placed
            if stage.percent is None:
                for member in naming.get(position, ()):
                    if stage_of[member] == NONE:
                        stage_of[member] = position
                        placed += 1
            else:
                # Rounded first: 16.1 % of 1000 members must not become 162 by a rounding error.
                wanted = math.ceil(round(stage.percent * members / 100, 9))
                while placed < wanted and (member := next(waiting, NONE)) != NONE:
                    if stage_of[member] == NONE:
                        stage_of[member] = position
                        placed += 1
            if placed == before:
                raise ConflictError(
                    f"{what}: stage {stage.name} is empty ({_asked(stage)} of {members} members, "
                    f"{placed} of them in earlier stages); change the stage or leave it out"
                )
        if placed < members:
            left = [self._ids[member] for member, stage in enumerate(stage_of) if stage == NONE]
            raise ConflictError(
                f"{what}: {len(left)} of {members} members are in no stage ({some(sorted(left))}); "
                "end with a stage of 100%"
            )
        return stage_of


def spread(by_chance: "array[int]", stage_of: "array[int]", site_of: "array[int]", random: Random) -> "array[float]":
    """The place of every member in its stage: evenly over the sites, by chance inside a site."""
    sites = max(site_of, default=0) + 1
    keys = array("Q", (stage * sites + site for stage, site in zip(stage_of, site_of, strict=True)))
    sizes, turns = Counter(keys), Counter[int]()
    order_of = array("d", bytes(8 * len(keys)))
    for member in by_chance:
        key = keys[member]
        order_of[member] = (turns[key] + random.random()) / sizes[key]
        turns[key] += 1
    return order_of


def _asked(stage: StageSpec) -> str:
    if stage.percent is not None:
        return f"up to {stage.percent:g}%"
    if stage.devices:
        return f"devices {some(stage.devices)}"
    return f"group {stage.group}" if stage.group else f"selector {stage.selector}"
