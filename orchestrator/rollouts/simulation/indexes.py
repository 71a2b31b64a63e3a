"""Where members of one rollout stand, kept as they change: the partial indexes of ``storage.tables``, in memory."""

from datetime import datetime

from orchestrator.model.assignment import BY_SCOPE, PENDING, Assignment, Work
from orchestrator.rollouts.simulation.ordered import Ordered

_OPEN = ("download", "activate")


class Indexes:
    """Members by what is asked of them.

    Attributes:
        open: Those with an open offer, by when it runs out.
        held: By when they are looked at again.
        blocked: Those of ``held`` that wait for a permit, by what holds them.
        granted: By when an activate grant that was not used ends.
        at_work: By work, and since when.
    """

    def __init__(self) -> None:
        self._next: dict[int, Ordered[float]] = {}
        self.asks, self.unsettled, self.untouched = Ordered[str](), Ordered[str](), Ordered[int]()
        self.open, self.held, self.granted = Ordered[datetime](), Ordered[datetime](), Ordered[datetime]()
        self.at_work: dict[str, Ordered[datetime]] = {work: Ordered() for work in Work if work}
        self.blocked: dict[str, Ordered[datetime]] = {}

    def add(self, row: Assignment) -> None:
        """Where a row stands; the conditions are those of the partial indexes in ``storage.tables``."""
        name = row.device
        if row.state == PENDING:
            self.untouched.put(name, row.stage)
            if row.ready and not row.held_by:
                self.queue(row.stage).put(name, row.place)
        if row.asking and not row.held_by:
            self.asks.put(name, name)
        if not row.settled:
            self.unsettled.put(name, name)
        if row.grant in _OPEN and row.offer_expires is not None:
            self.open.put(name, row.offer_expires)
        if row.work and not row.verdict and row.work_since is not None:
            self.at_work[row.work].put(name, row.work_since)
        if row.held_by and row.not_before is not None:
            self.held.put(name, row.not_before)
            if row.held_by.startswith(BY_SCOPE):
                self.blocked.setdefault(row.held_by, Ordered()).put(name, row.not_before)
        if row.grant_until is not None:
            self.granted.put(name, row.grant_until)

    def move(self, before: Assignment, after: Assignment) -> None:
        """Where it stands once it has changed."""
        name = after.device
        if before.state == PENDING:
            if after.state != PENDING:
                self.untouched.drop(name)
            if before.ready and not before.held_by and (after.state != PENDING or not after.ready or after.held_by):
                self.queue(after.stage).drop(name)
        if before.asking and not before.held_by and (not after.asking or after.held_by):
            self.asks.drop(name)
        if not before.settled and after.settled:
            self.unsettled.drop(name)
        if before.grant in _OPEN and (after.grant not in _OPEN or after.offer_expires is None):
            self.open.drop(name)
        if before.work and (after.work != before.work or after.verdict or after.work_since is None):
            self.at_work[before.work].drop(name)
        if before.held_by and (after.held_by != before.held_by or after.not_before is None):
            self.held.drop(name)
            if before.held_by in self.blocked:
                self.blocked[before.held_by].drop(name)
        if before.grant_until is not None and after.grant_until is None:
            self.granted.drop(name)
        self.add(after)

    def queue(self, stage: int) -> Ordered[float]:
        """Ready devices of a stage whose turn it is, by their place."""
        found = self._next.get(stage)
        if found is None:
            found = self._next[stage] = Ordered()
        return found
