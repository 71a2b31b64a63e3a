"""One device's place in one rollout, and what it counts as."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any

from orchestrator.model.failure import FAILED_STATES, TIMED_OUT, failure_key, verdict_key
from protocol.states import OUTCOMES, TOUCHED, Phase, State

PENDING = "pending"
"""Never offered."""
OFFERED = "offered"
"""Offered; the device has not said a state yet. Every other state is a ``protocol.states.State``."""
EXCLUDED = "excluded"
"""Taken out of the rollout: revoked, retired, or one of two under one id. Over, and not finished: it proves nothing."""

MAX_CLOSE_REASON_CHARS = 200
BY_ROLLOUT, BY_SCOPE, BY_SITE, BY_RETRY, BY_PREEMPTION = "rollout:", "scope:", "site", "retry", "preempted"
"""What ``held_by`` begins with: another rollout has the device, no permit is left, no bytes are left for its site,
a retry waits for its time, the device must give up this update for a heavier rollout first."""


class Work(StrEnum):
    """What a device is at, as far as time limits tell apart. Waiting to activate is queueing too."""

    NONE = ""
    QUEUED = "queued"
    DOWNLOADING = "downloading"
    INSTALLING = "installing"
    VERIFYING = "verifying"


_WORK = {
    OFFERED: Work.QUEUED,
    State.EVALUATING: Work.QUEUED,
    State.WAITING: Work.QUEUED,
    State.DOWNLOADING: Work.DOWNLOADING,
    State.FETCHED: Work.QUEUED,
    State.INSTALLING: Work.INSTALLING,
    State.INSTALLED: Work.INSTALLING,
    State.ACTIVATING: Work.INSTALLING,
    State.VERIFYING: Work.VERIFYING,
    State.COMMITTING: Work.VERIFYING,
    State.ROLLING_BACK: Work.VERIFYING,
}
CHANGING = frozenset({*TOUCHED, State.ROLLING_BACK})
"""States in which a device's software is being changed."""

Deltas = Counter[tuple[str, int, str]]
"""(rollout, stage, key) -> change of the count; may be negative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One row of ``assignments``; the fields are its columns.

    Attributes:
        place: Random order inside the stage.
        site: The label ``site`` when it was placed.
        scopes: Whose permits an activation needs: ``LABEL=VALUE`` or ``group:NAME``.
        settled: False from a failure until the engine has judged whether it is tried again; it counts from then on.
        verdict: Of the engine or the silence watch, for want of an outcome: ``timed_out`` or
            ``silent_after_activation``. A signed outcome replaces it.
        held_by: What keeps it from its turn, see ``BY_...``; "" where nothing does.
        not_before: When what holds it is looked at again.
        retried: By failure class, how often it was tried again by itself.
        work, work_since: What it is at, and since when; what time limits are judged on.
        grant_until: When an activate grant that was not used has surely ended on the device.
        ready: Pending, and the device said that it is ready.
        asking: The device asked for an activate grant and was not answered yet.
        nonce: Of the newest report; what ``heard`` names.
        grant: none, download, activate or closed.
        reasons: Gates that are not open, as ``protocol.reports.Reason`` dumps them.
        percent, bytes_*, rate_bytes_s: As the device said last of its download; nothing of them falls in one attempt.
    """

    rollout: str
    device: str
    stage: int
    place: float
    site: str = ""
    scopes: list[str] = field(default_factory=list)
    attempt: int = 1
    state: str = PENDING
    ready: bool = False
    asking: bool = False
    phase: str | None = None
    reasons: list[dict[str, Any]] = field(default_factory=list)
    nonce: str | None = None
    grant: str = "none"
    grant_nonce: str | None = None
    close_reason: str = ""
    outcome_digest: str | None = None
    code: str | None = None
    detail: str = ""
    log: str = ""
    from_version: str | None = None
    running_version: str | None = None
    resumed: bool = False
    percent: float = 0.0
    bytes_fetched: int = 0
    bytes_copied: int = 0
    bytes_delta: int = 0
    bytes_present: int = 0
    bytes_total: int = 0
    rate_bytes_s: float = 0.0
    offered_at: datetime | None = None
    offer_expires: datetime | None = None
    updated_at: datetime | None = None
    settled: bool = True
    verdict: str = ""
    held_by: str = ""
    not_before: datetime | None = None
    retried: dict[str, int] = field(default_factory=dict)
    work: str = Work.NONE
    work_since: datetime | None = None
    grant_until: datetime | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether the device does nothing more for this attempt."""
        return self.state in _TERMINAL

    @property
    def is_changing(self) -> bool:
        """Whether the device's software is being changed: from installing on, until it is proven or taken back."""
        return self.state in CHANGING

    @property
    def permits(self) -> tuple[str, ...]:
        """The scopes in which it counts as unavailable now: granted to activate, or at it, or left inconsistent."""
        if not self.scopes:
            return ()
        granted = self.grant_until is not None or (self.grant == "activate" and not self.is_terminal)
        waits = self.phase == Phase.ACTIVATE and self.grant != "activate"
        at_it = self.is_changing and not waits
        return tuple(self.scopes) if granted or at_it or self.state == State.INCONSISTENT else ()

    def is_open(self, now: datetime) -> bool:
        """Whether its offer grants something now."""
        runs = self.offer_expires is None or self.offer_expires > now
        return self.grant in {"download", "activate"} and runs and not self.is_terminal

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> "Assignment":
        """Read a row's mapping."""
        return cls(**{name: row[name] for name in FIELDS})

    def to_row(self) -> dict[str, Any]:
        """Values by column."""
        return {name: getattr(self, name) for name in FIELDS}


FIELDS = tuple(f.name for f in fields(Assignment))
_TERMINAL = frozenset({*(state.value for state in OUTCOMES), EXCLUDED, TIMED_OUT})
OVER = _TERMINAL
"""States in which a device has nothing left to do."""
UNSETTLED = "unsettled"
_DECIDING = frozenset({"ready", "asking", f"state:{UNSETTLED}", *(f"state:{state}" for state in _TERMINAL)})


def moved(row: Assignment, now: datetime, **changes: Any) -> Assignment:  # noqa: ANN401 - fields
    """The row with changes, and what follows from them for the work that it is at."""
    after = _copy(row, {**changes, "updated_at": now})
    work = Work.NONE if after.is_terminal else _WORK.get(after.state, Work.NONE)
    if work is Work.INSTALLING and after.phase == Phase.ACTIVATE and after.grant != "activate":
        work = Work.QUEUED
    return after if work == row.work else _copy(after, {"work": work, "work_since": now if work else None})


_READ = attrgetter(*FIELDS)
_WRITE: dict[str, Callable[[Assignment, Any], None]] = {name: vars(Assignment)[name].__set__ for name in FIELDS}
_WRITE_ALL = tuple(_WRITE.values())


def _copy(row: Assignment, changes: Mapping[str, Any]) -> Assignment:
    """As ``dataclasses.replace``, at less than half of its cost: a device's way through a rollout is a dozen of these.

    Raises:
        KeyError: There is no such field.
    """
    after = Assignment.__new__(Assignment)
    for write, value in zip(_WRITE_ALL, _READ(row), strict=True):
        write(after, value)
    for name, value in changes.items():
        _WRITE[name](after, value)
    return after


def let_go(row: Assignment) -> Assignment:
    """Nothing holds it any more: its turn may have come."""
    return _copy(row, {"held_by": "", "not_before": None})


def exclude(row: Assignment, why: str, now: datetime) -> Assignment:
    """Take the device out of this rollout; an offer that it has is closed with the reason."""
    return moved(
        row,
        now,
        state=EXCLUDED,
        ready=False,
        asking=False,
        reasons=[],
        grant="none" if row.offered_at is None else "closed",
        grant_nonce=None,
        close_reason=why[:MAX_CLOSE_REASON_CHARS],
        detail=why,
        settled=True,
        verdict="",
        held_by="",
        not_before=None,
    )


def count_keys(row: Assignment) -> frozenset[str]:
    """The counters in which this assignment stands: its state, its failure, and ready, asking, offered as they apply.

    What is held counts as ``held`` instead of ``ready``, as ``blocked`` instead of ``asking``.
    """
    keys = {f"state:{row.state if row.settled else UNSETTLED}"}
    if row.ready and row.state == PENDING:
        keys.add("held" if row.held_by else "ready")
    if row.asking:
        keys.add("blocked" if row.held_by else "asking")
    if row.offered_at is not None:
        keys.add("offered")
    if row.state in FAILED_STATES:
        if row.settled:
            keys.add(failure_key(row.state, row.code))
    elif row.verdict and not row.is_terminal:
        keys.add(verdict_key(row.verdict))
    return frozenset(keys)


def scope_figures(row: Assignment) -> dict[str, tuple[int, int]]:
    """What this assignment adds to its scopes: (permits that it holds, permits that it waits for)."""
    found = dict.fromkeys(row.permits, (1, 0))
    if row.asking and row.held_by.startswith(BY_SCOPE):
        found[row.held_by.removeprefix(BY_SCOPE)] = (0, 1)
    return found


def byte_sums(row: Assignment) -> dict[str, int]:
    """What this assignment adds to the sums of its stage, by key: bytes of the download by the way they came."""
    return {
        "bytes:fetched": row.bytes_fetched,
        "bytes:copied": row.bytes_copied,
        "bytes:delta": row.bytes_delta,
        "bytes:present": row.bytes_present,
    }


def counted(row: Assignment) -> dict[str, int]:
    """What this assignment adds to the counters of its stage, by key: one under each of its keys, and its bytes."""
    return dict.fromkeys(count_keys(row), 1) | {key: size for key, size in byte_sums(row).items() if size}


def deciding_keys(row: Assignment) -> frozenset[str]:
    """Those of the counters that the engine decides on: who is ready, who asks, who is done."""
    return count_keys(row) & _DECIDING


def count_deltas(before: Assignment, after: Assignment) -> Deltas:
    """How the counts change when one becomes the other; both are the same device's place."""
    if (before.rollout, before.device, before.stage) != (after.rollout, after.device, after.stage):
        raise ValueError("an assignment keeps its rollout, device and stage")
    old, new = count_keys(before), count_keys(after)
    deltas: Deltas = Counter()
    for key in new - old:
        deltas[after.rollout, after.stage, key] += 1
    for key in old - new:
        deltas[after.rollout, after.stage, key] -= 1
    was = byte_sums(before)
    for key, size in byte_sums(after).items():
        if size != was[key]:
            deltas[after.rollout, after.stage, key] += size - was[key]
    return deltas
