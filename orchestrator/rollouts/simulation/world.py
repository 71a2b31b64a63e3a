"""Virtual time: what devices do and when the engine looks, in one queue. Same plan, habits and seed: same trace.

The engine is the real one: ``reconcile`` judges, ``carry_out`` acts, on rows in memory. It looks when something changed
and when it said so, and no more often than the plan's fleet is large: five thousand devices are looked at every second,
more of them less often, a million once a minute. A look that the engine asked for comes sooner where the plan has a
pace, so that no offer that was saved up is lost.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from random import Random

from orchestrator.model.assignment import Assignment
from orchestrator.model.plan import RolloutSpec
from orchestrator.model.reporting import apply_progress, apply_readiness, apply_state
from orchestrator.model.rollout import Rollout, RolloutState, Stage, StageState
from orchestrator.rollouts.carrying_out import Change, Terms, carry_out, spent
from orchestrator.rollouts.engine import reconcile
from orchestrator.rollouts.facts import Decisions
from orchestrator.rollouts.pace import Bucket
from orchestrator.rollouts.plans import Plan
from orchestrator.rollouts.simulation.acting import Acts, Event, Happens
from orchestrator.rollouts.simulation.devices import Nature, make_devices, report_of
from orchestrator.rollouts.simulation.habits import Habits, seconds_of_day
from orchestrator.rollouts.simulation.membership import choose
from orchestrator.rollouts.simulation.memory_rows import MemoryFleet, MemoryRows, finish
from orchestrator.rollouts.simulation.trace import MAX_SAMPLES, Trace
from orchestrator.rollouts.stage_moves import figures_of
from orchestrator.rollouts.steps import fall_silent
from protocol.reports import Progress, Readiness, StateReport

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
"""When a simulation begins whose plan names no time."""
LEASE = timedelta(days=1)
GRANT_LIFE = timedelta(minutes=16)
PER_SECOND = 5000
"""Devices for each second between two looks."""
MAX_SETTLE_S = 60.0
LEAST_WAIT_S = 0.05
"""Between two looks; as the controller waits."""


class World:
    """One rollout over modelled devices. Made by ``simulate``."""

    def __init__(self, spec: RolloutSpec, count_devices: int, habits: Habits, seed: int, until_s: float) -> None:
        self.begin = spec.start_at or MONDAY
        self.until_s = until_s
        random = Random(seed)
        devices = make_devices(count_devices, spec, habits, random)
        plan = choose(devices, spec, habits, random)
        self.devices = {device.name: device for device in devices}
        self.nature = Nature(habits, random, seconds_of_day(self.begin))
        self.acts = Acts(self.nature, habits, image_bytes=habits.image_bytes)
        self.fleet = MemoryFleet()
        self.rows = self._rows_of(spec, plan)
        self.trace = Trace(self.begin, max(1.0, until_s / MAX_SAMPLES), members=len(plan))
        self.settle_s = min(MAX_SETTLE_S, max(1.0, len(plan) / PER_SECOND))
        self._wait_s = min(self.settle_s, longest_wait_s(spec))
        self.terms = Terms(lease=LEASE, grant_life=GRANT_LIFE, image_bytes=habits.image_bytes)
        self._queue: list[tuple[float, int, Event]] = []
        self._order = count()
        self._look_at = 0.0
        self._looked_at = -self.settle_s
        self.now_s = 0.0

    @property
    def now(self) -> datetime:
        """The virtual instant."""
        return self.begin + timedelta(seconds=self.now_s)

    def run(self, tell: Callable[[float], None] | None = None) -> Trace:
        """To the end of the rollout, or of the time.

        Args:
            tell: Is told the virtual seconds, at every look.
        """
        for name in self.rows.rows:
            self._add(self.acts.announced(self.devices[name], 0.0))
        looks = 0
        while self._step():
            if tell is not None and self.trace.looks != looks:
                looks = self.trace.looks
                tell(self.now_s)
        self._sample(last=True)
        self.trace.rollout, self.trace.stages, self.trace.end_s = self.rows.rollout, self.rows.stages, self.now_s
        return self.trace

    def _rows_of(self, spec: RolloutSpec, plan: Plan) -> MemoryRows:
        running = Rollout(
            id="r-1", release=spec.release, state=RolloutState.RUNNING, spec=spec, created_at=self.begin,
            started_at=self.begin, timed_from=self.begin,
        )  # fmt: skip
        sizes = plan.sizes()
        stages = [
            Stage(rollout="r-1", position=n, name=stage.name, members=sizes[n]) for n, stage in enumerate(spec.stages)
        ]
        rows = self.fleet.add(running, stages)
        rows.insert(
            Assignment(rollout="r-1", device=p.device, stage=p.stage, place=p.order, site=p.site, scopes=list(p.scopes))
            for p in plan.places()
        )
        return rows

    def _step(self) -> bool:
        """One event, or one look; False when there is nothing more to come."""
        rollout = self.rows.rollout
        next_event = self._queue[0][0] if self._queue else None
        is_over = rollout.ended_at is not None or (rollout.state is RolloutState.HALTED and next_event is None)
        at_s = self._look_at if next_event is None else min(self._look_at, next_event)
        if is_over or at_s > self.until_s:
            self.now_s = min(self.until_s, self.now_s if is_over else self.until_s)
            return False
        self.now_s = max(self.now_s, at_s)
        if next_event is not None and next_event <= self._look_at:
            _, _, event = heappop(self._queue)
            self._happens(event)
        else:
            self._look()
        return True

    def _add(self, events: Iterator[tuple[float, Event]]) -> None:
        for at_s, event in events:
            heappush(self._queue, (at_s, next(self._order), event))

    def _happens(self, event: Event) -> None:
        if event.what is Happens.PROMOTED:
            self._promote()
            return
        device, row = self.devices[event.device], self.rows.rows[event.device]
        match event.what:
            case Happens.HEARD:
                # Order is for ingest to keep: what is older than what was heard since is dropped there.
                if event.seq >= device.heard:
                    device.heard = event.seq
                    self._hear(row, event)
            case Happens.SILENT:
                self._change([(row, fall_silent(row))])
            case _:
                self._add(self.acts.next(device, row, event, self.now_s))

    def _hear(self, row: Assignment, event: Event) -> None:
        """A report arrives: what it changes is for the real code to say."""
        report = report_of(event.says, event.attempt)
        self.trace.reports += 1
        match report:
            case Readiness():
                after = apply_readiness(row, report, self.now).after
            case StateReport():
                after = apply_state(row, report, f"{event.attempt:064}", self.now).after
            case Progress():
                after = apply_progress(row, report, self.now)
        if after != row:
            self._change([(row, after)])

    def _change(self, changes: Sequence[Change]) -> None:
        news = [(before, after) for before, after in changes if before != after]
        if not news:
            return
        self.rows.write(news)
        for _, after in news:
            self.trace.moved(self.now_s, after)
        self._look_at = min(self._look_at, max(self.now_s, self._looked_at + self.settle_s))

    def _promote(self) -> None:
        """The person of the plan opens the next stage."""
        for stage in self.rows.stages:
            if stage.state is StageState.AWAITING_APPROVAL:
                passed = replace(stage, state=StageState.PASSED, passed_at=self.now)
                self.rows.stages[stage.position] = passed
                self._look_at = self.now_s

    def _look(self) -> None:
        self.trace.looks += 1
        self._looked_at = self.now_s
        while True:
            facts = self.rows.facts(steady_from=self.begin)
            decisions = reconcile(facts, self.now, LEASE)
            if decisions.is_nothing:
                break
            if not self._decide(decisions):
                break
        self._sample()
        wake_at = decisions.wake_at
        self._look_at = self.until_s + 1 if wake_at is None else (wake_at - self.begin).total_seconds()
        self._look_at = max(self._look_at, self.now_s + self._wait_s)

    def _decide(self, decisions: Decisions) -> bool:
        """Carry out, and let devices notice; returns whether there is more to do at once."""
        before = self.rows.rollout
        written = finish(carry_out(self.rows, decisions, self.terms, self.now))
        after = decisions.rollout
        self.rows.rollout = replace(spent(after, written.offered), wants_revert=False)
        for stage in decisions.stages:
            self.rows.stages[stage.position] = stage
            if stage.state is StageState.AWAITING_APPROVAL:
                at_s = self.now_s + self.nature.after(self.nature.habits.approve_s)
                heappush(self._queue, (at_s, next(self._order), Event(Happens.PROMOTED, "")))
        if after.state is RolloutState.ABORTED and before.state is not after.state:
            for row in self.rows.rows.values():
                self._add(self.acts.aborted(self.devices[row.device], row, self.now_s))
        self.trace.happened(self.now_s, decisions.happenings)
        if written.offered:
            self.trace.offered(self.now_s, written.offered)
        for was, row in written.changes:
            self.trace.moved(self.now_s, row)
            self._add(self.acts.told(self.devices[row.device], was, row, self.now_s))
        scopes = {scope for _, row in written.changes for scope in row.scopes}
        self.trace.held({scope: self.fleet.held[scope] for scope in scopes})
        return written.more or bool(decisions.stages)

    def _sample(self, *, last: bool = False) -> None:
        due = not self.trace.samples or self.now_s - self.trace.samples[-1].at_s >= self.trace.interval_s
        if due or last:
            self.trace.judged(self.now_s, figures_of(self.rows.facts()), self.rows.stages)
        self.trace.sample(self.now_s, self.rows.counts, last=last)


def longest_wait_s(spec: RolloutSpec) -> float:
    """How long the engine may be kept waiting before its bucket of offers, with part of one left in it, runs over."""
    if spec.pace_per_minute is None:
        return MAX_SETTLE_S
    room = Bucket(spec.pace_per_minute).capacity - 1
    return max(LEAST_WAIT_S, room * 60 / spec.pace_per_minute)


def simulate(
    spec: RolloutSpec,
    devices: int,
    habits: Habits,
    *,
    seed: int,
    until_s: float,
    tell: Callable[[float], None] | None = None,
) -> Trace:
    """Run a rollout in virtual time.

    Args:
        devices: Of the whole fleet; the plan chooses among them.
        until_s: Virtual seconds after the start at which it is left.
        tell: Is told the virtual seconds, at every look.

    Raises:
        ConflictError: The plan fits no device, or a stage is empty.
    """
    plan = spec.model_copy(update={"needs_approval": False})
    return World(plan, devices, habits, seed, until_s).run(tell)
