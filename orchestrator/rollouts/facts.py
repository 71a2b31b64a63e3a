"""What the engine judges, and what it comes to: values, in and out. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.model.rollout import Rollout, Stage
from protocol.states import State
from protocol.status_messages import RuleFigure

VERSION = 2
"""Of what is decided; rises when the same facts lead to another decision."""
OFFER_BATCH = 500
"""Offers made, answers given and offers renewed in one transaction, at most."""

Counts = Mapping[int, Mapping[str, int]]
"""Stage -> count key -> devices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is stored about one rollout.

    Attributes:
        is_deliverable: The release's chunks stand where devices find them; offers wait until they do.
        oldest: By work, since when the device that is at it longest is; of works that have a limit.
        next_let_go: When the first device that is held is looked at again.
        next_grant_end: When the first activate grant that was not used ends.
        has_free_permit: Some scope that devices wait for has a permit left.
        is_latched: The whole fleet is halted.
        steady_from: Since when the clock can be believed to have gone evenly, and reports to have been heard: time
            limits of devices are counted from here at the earliest.
        leapt_at: When the clock leapt last; what it leapt over was not soaked.
    """

    rollout: Rollout
    stages: Sequence[Stage]
    counts: Counts
    next_offer_expiry: datetime | None = None
    is_deliverable: bool = True
    oldest: Mapping[str, datetime] = field(default_factory=dict)
    next_let_go: datetime | None = None
    next_grant_end: datetime | None = None
    has_free_permit: bool = False
    is_latched: bool = False
    steady_from: datetime | None = None
    leapt_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Happening:
    """A decision in words, for the events."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """What to do. Nothing here is done yet.

    Attributes:
        rollout: As it shall be; equal to what was given where nothing changes.
        stages: Those that change.
        settle: Failed attempts must be judged first; nothing else is decided.
        begin: A scheduled rollout's time has come: place its members and start it.
        announce: The announcement must be signed anew.
        offer_stages, offer_budget: From which stages, in order, how many ready devices may be offered.
        answer: None, or whether asking devices get their activate grant (False: only heard).
        renew_until: Open offers that run out by then are signed anew; None: none.
        time_out: Work -> devices that are at it since before then took too long.
        let_go: Held devices whose time has come may be offered or answered again.
        free: Devices that wait for a permit are looked at again, where one is left.
        end_grants: Activate grants that have run out unused are taken back.
        close_pending: What members that were never reached come to; None: they stay.
        repace: The clock was set back: the pace is counted from now on.
        forget: Less has failed than a person acknowledged: a device that was given up has spoken.
        revert: Devices that were updated are still to go back: a rule halted, and the plan wants it. Done beside the
            engine, and by itself nothing to write.
        wake_at: When facts may lead to something else by the clock alone.
    """

    rollout: Rollout
    stages: tuple[Stage, ...] = ()
    settle: bool = False
    begin: bool = False
    announce: bool = False
    offer_stages: tuple[int, ...] = ()
    offer_budget: int = 0
    answer: bool | None = None
    renew_until: datetime | None = None
    time_out: Mapping[str, datetime] = field(default_factory=dict)
    let_go: bool = False
    free: bool = False
    end_grants: bool = False
    close_pending: State | None = None
    repace: bool = False
    forget: bool = False
    revert: bool = False
    happenings: tuple[Happening, ...] = ()
    figures: tuple[RuleFigure, ...] = ()
    wake_at: datetime | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to write."""
        return not (
            self.stages
            or self.settle
            or self.begin
            or self.announce
            or self.offer_budget
            or self.answer is not None
            or self.renew_until
            or self.time_out
            or self.let_go
            or self.free
            or self.end_grants
            or self.close_pending
            or self.repace
            or self.forget
            or self.happenings
        )
