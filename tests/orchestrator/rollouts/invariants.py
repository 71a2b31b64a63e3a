"""What must hold of rollouts at every step, whatever happens. Pure.

Whoever drives an engine - a state machine, a simulation, a test of the whole - tells this of every step: the world
before and after it, and whose step it was. It knows the rules, not how they are kept: what it compares with is counted
from the rows themselves. The numbers I4 to I16 are those of the design's list of invariants.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from orchestrator.model.assignment import EXCLUDED, PENDING, Assignment, byte_sums, count_keys, scope_figures
from orchestrator.model.failure import TIMED_OUT
from orchestrator.model.plan import AtEnd
from orchestrator.model.rollout import BEGUN, Rollout, RolloutState, Stage, StageState
from orchestrator.rollouts.carrying_out import limit_of
from orchestrator.rollouts.engine import reconcile
from orchestrator.rollouts.facts import Decisions, Facts
from orchestrator.rollouts.pace import BURST_S
from orchestrator.rollouts.rules import StageCounts, halt_figures, stage_counts, success_rule
from orchestrator.rollouts.stage_moves import soak_s
from protocol.states import FINISHED, OUTCOMES, State

HOUR = timedelta(hours=1)
_S = RolloutState
_MOVING = (_S.RUNNING, _S.PAUSED)
_ROUNDING = 1e-3


class By(StrEnum):
    """Whose step it was."""

    ENGINE = "engine"
    REPORT = "report"
    ORDER = "order"


@dataclass(frozen=True, slots=True)
class World:
    """All that is stored of rollouts at one moment; rows by (rollout, device)."""

    rollouts: Mapping[str, Rollout] = field(default_factory=dict)
    stages: Mapping[str, Sequence[Stage]] = field(default_factory=dict)
    rows: Mapping[tuple[str, str], Assignment] = field(default_factory=dict)
    is_latched: bool = False

    def members(self, rollout: str) -> list[Assignment]:
        """The rows of one rollout."""
        return [row for row in self.rows.values() if row.rollout == rollout]

    def held(self) -> Counter[str]:
        """Devices that are away, by scope; each once, by however many rollouts."""
        return Counter(
            scope for scope, _ in {(scope, row.device) for row in self.rows.values() for scope in row.permits}
        )

    def scopes(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(held, waiting) by (scope, rollout), zeros left out."""
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for row in self.rows.values():
            for scope, (held, waiting) in scope_figures(row).items():
                former = found.get((scope, row.rollout), (0, 0))
                found[scope, row.rollout] = (former[0] + held, former[1] + waiting)
        return {key: figures for key, figures in found.items() if any(figures)}

    def counts(self, rollout: str) -> dict[int, dict[str, int]]:
        """What the counters of a rollout must be, zeros left out."""
        found: defaultdict[int, Counter[str]] = defaultdict(Counter)
        for row in self.members(rollout):
            found[row.stage].update(count_keys(row))
            found[row.stage].update({key: size for key, size in byte_sums(row).items() if size})
        return {stage: dict(keys) for stage, keys in found.items()}

    def judged(self, rollout: str) -> list[tuple[Stage, StageCounts]]:
        """Begun stages with what their rules are judged on."""
        counts, seen = self.counts(rollout), self.rollouts[rollout].acknowledged
        return [
            (s, stage_counts(s.name, s.members, counts.get(s.position, {}), seen.get(s.position)))
            for s in self.stages[rollout]
            if s.state in BEGUN
        ]


def is_live(row: Assignment) -> bool:
    """Whether the device is at this update, as far as is known."""
    return row.offered_at is not None and row.state != PENDING and not row.is_terminal


def is_new_offer(was: Assignment, row: Assignment) -> bool:
    """Whether the device was offered the download in this step."""
    return (was.offered_at, was.attempt) != (row.offered_at, row.attempt)


def is_new_grant(was: Assignment, row: Assignment) -> bool:
    """Whether the device was granted to activate in this step."""
    if row.grant_nonce is None:
        return False  # it was given before, is not said again, and runs out by itself
    return row.grant == "activate" and (was.grant, was.grant_nonce) != (row.grant, row.grant_nonce)


@dataclass
class Invariants:
    """Keeps what is needed over several steps: when offers were made. ``violated`` raises AssertionError."""

    _epoch: int = 0
    _offers: defaultdict[tuple[int, str], list[datetime]] = field(default_factory=lambda: defaultdict(list))
    _at_sites: defaultdict[tuple[int, str, str], list[datetime]] = field(default_factory=lambda: defaultdict(list))

    def clock_stepped(self) -> None:
        """Windows of time are measured within even time only."""
        self._epoch += 1

    def decided(self, facts: Facts, decisions: Decisions, now: datetime, lease: timedelta, world: World) -> None:
        """A decision, and the world that it was made on."""
        rollout = facts.rollout.id
        _must(facts.counts == world.counts(rollout), "I9", f"{rollout}: counters differ from a recount", facts.counts)
        _must(reconcile(facts, now, lease) == decisions, "I16", f"{rollout}: the same facts lead to something else")
        if decisions.settle or world.is_latched != facts.is_latched:
            return
        figures = halt_figures([(world.rollouts[rollout].spec.stages[s.position], c) for s, c in world.judged(rollout)],
                               facts.rollout.spec)  # fmt: skip
        broken = [figure for _, figure in figures if figure.met]
        halts = decisions.rollout.state is _S.HALTED and facts.rollout.state in _MOVING
        if facts.rollout.state in _MOVING and facts.rollout.ended_at is None:
            over = _is_over(facts.rollout, now) and facts.rollout.spec.at_end is AtEnd.HALT
            _must(halts == (bool(broken) or over), "I16", f"{rollout}: halted {halts}, rules broken: {broken}")
        if halts:
            _must(not decisions.offer_budget, "I6", f"{rollout}: offers in the decision that halts")
            _must(not decisions.answer, "I6", f"{rollout}: grants in the decision that halts")
            _must(decisions.announce, "I6", f"{rollout}: the halt is not announced")

    def moved(self, before: World, after: World, now: datetime, by: By, verb: str = "", named: str = "") -> None:
        """A step.

        Args:
            verb: With an order, which.
            named: With an order, the rollout that it is for.
        """
        if by is By.REPORT:
            _must(before.rollouts == after.rollouts, "I12", "a report changed a rollout", after.rollouts)
            _must(before.stages == after.stages, "I5", "a report changed a stage", after.stages)
        for name, rollout in after.rollouts.items():
            if name in before.rollouts:
                self._rollout(before, after, name, now, by, verb if name == named else "")
                _stages(before, after, name, now, by, verb if name == named else "")
            if rollout.started_at is not None:  # before, the stages have the sizes that the plan came to
                members = sum(s.members for s in after.stages[name])
                _must(members == len(after.members(name)), "I9", f"{name}: members differ")
            former = before.rollouts.get(name)
            if rollout.ended_at is not None and (former is None or former.ended_at is None):
                # Later one of them may speak again that was taken for silent.
                left = [row for row in after.members(name) if not (row.is_terminal or row.verdict)]
                _must(not left, "I8", f"{name}: ended, and members are not done", left)
        offers: defaultdict[str, list[Assignment]] = defaultdict(list)
        for key, was in before.rows.items():
            row = after.rows[key]
            if row == was:
                continue
            _row(was, row, by, verb if row.rollout == named else "", after.rollouts[row.rollout])
            if is_new_offer(was, row):
                _offer(before, after, was, row, now, by)
                offers[row.rollout].append(row)
            if is_new_grant(was, row):
                _grant(before, after, was, row, by)
        _live_once(after)
        _never_above(before, after)
        for name in before.rollouts:
            made = after.rollouts[name].offers_made - before.rollouts[name].offers_made
            _must(made == len(offers[name]), "I9", f"{name}: {len(offers[name])} offers were made, counted {made}")
        for name, rows in offers.items():
            self._paced(after, name, rows, now)

    def counted(
        self,
        world: World,
        counts: Mapping[str, Mapping[int, Mapping[str, int]]],
        scopes: Mapping[tuple[str, str], tuple[int, int]],
    ) -> None:
        """What the counters say, by rollout, and those of scopes; all without zeros."""
        for name in world.rollouts:
            wanted = world.counts(name)
            _must(counts.get(name, {}) == wanted, "I9", f"{name}: counters differ: {counts.get(name)}", wanted)
            for stage in world.stages[name] if world.rollouts[name].started_at else ():
                states = sum(n for key, n in wanted.get(stage.position, {}).items() if key.startswith("state:"))
                _must(states == stage.members, "I9", f"{name}: states of stage {stage.name} do not add up")
        _must(scopes == world.scopes(), "I9", f"counters of scopes differ: {scopes}", world.scopes())

    def _rollout(self, before: World, after: World, name: str, now: datetime, by: By, verb: str) -> None:
        was, found = before.rollouts[name], after.rollouts[name]
        _must(was.spec == found.spec, "I13", f"{name}: the plan changed")
        _must(found.halts >= was.halts, "I15", f"{name}: halts fell")
        if was.ended_at is not None and verb != "retry":
            _must(found == was, "I8", f"{name}: ended, and changed", found)
        if was.state is found.state:
            return
        if by is By.ORDER:
            _must(bool(verb), "I13", f"{name}: an order for another rollout moved it from {was.state}")
            return
        moves = {
            (_S.SCHEDULED, _S.RUNNING), (_S.SCHEDULED, _S.DRAFT),
            *((state, end) for state in _MOVING for end in (_S.HALTED, _S.ABORTED, _S.COMPLETED)),
        }  # fmt: skip
        _must((was.state, found.state) in moves, "I6", f"{name}: {was.state} became {found.state} by itself")
        if found.state is _S.ABORTED:
            _must(_is_over(found, now) and found.spec.at_end is AtEnd.ABORT, "I16", f"{name}: aborted by itself")

    def _paced(self, after: World, name: str, rows: Sequence[Assignment], now: datetime) -> None:
        spec = after.rollouts[name].spec
        made = self._offers[self._epoch, name]
        made += [now] * len(rows)
        if spec.pace_per_minute is not None:
            rate = spec.pace_per_minute
            if spec.pace_growth is not None:
                grown = [
                    row for row in after.members(name) if spec.pace_growth.of == "offered" or row.state in FINISHED
                ]
                counted = after.rollouts[name].offers_made if spec.pace_growth.of == "offered" else len(grown)
                steps = counted // spec.pace_growth.every
                rate = min(spec.pace_growth.max_per_minute, rate * spec.pace_growth.factor**steps)
            for first, at in enumerate(made):
                passed_s = (now - at).total_seconds()
                may = max(1.0, rate * BURST_S / 60) + rate * passed_s / 60 + _ROUNDING
                _must(len(made) - first <= may, "pace", f"{name}: {len(made) - first} offers in {passed_s} s", made)
        for row in rows:
            self._at_sites[self._epoch, name, row.site].append(now)
        if spec.site_bytes_per_hour is not None:
            for site in {row.site for row in rows}:
                within = [at for at in self._at_sites[self._epoch, name, site] if now - at < HOUR]
                _must(len(within) <= spec.site_bytes_per_hour, "site", f"{name}: {len(within)} at {site!r}", within)


def _must(holds: bool, number: str, says: str, *more: object) -> None:
    if not holds:
        raise AssertionError(": ".join([f"{number}: {says}", *map(str, more)]))


def _is_over(rollout: Rollout, now: datetime) -> bool:
    return rollout.spec.end_at is not None and rollout.spec.end_at <= now


def _offer(before: World, after: World, was: Assignment, row: Assignment, now: datetime, by: By) -> None:
    """I5, I6, I7: only the engine, only in a rollout that runs, only in a stage whose turn has come."""
    name = f"{row.rollout}/{row.device}"
    _must(by is By.ENGINE, "I6", f"{name}: offered by a {by}")
    for world in (before, after):
        state = world.rollouts[row.rollout].state
        _must(state is _S.RUNNING, "I6", f"{name}: offered in a rollout that is {state}")
    _must(not before.is_latched, "I6", f"{name}: offered while the fleet is halted")
    _must(not _is_over(after.rollouts[row.rollout], now), "I6", f"{name}: offered after the end")
    is_free = not was.held_by or (was.not_before is not None and was.not_before <= now)  # let go in the same step
    _must(was.state == PENDING and was.ready and is_free, "I5", f"{name}: it was not its turn", was)
    stages = after.stages[row.rollout]
    _must(stages[row.stage].state in BEGUN, "I5", f"{name}: its stage is {stages[row.stage].state}")
    _must(
        all(stage.state is StageState.PASSED for stage in stages[: row.stage]),
        "I5",
        f"{name}: before its stage",
        stages,
    )
    if was.offered_at is not None:
        _must(row.attempt == was.attempt + 1, "I15", f"{name}: offered again under attempt {row.attempt}")
    if was.not_before is not None:
        _must(was.not_before <= now, "pace", f"{name}: offered before {was.not_before}")


def _grant(before: World, after: World, was: Assignment, row: Assignment, by: By) -> None:
    """I4, I6: in answer to a question, with a permit in every scope."""
    name = f"{row.rollout}/{row.device}"
    _must(by is By.ENGINE, "I6", f"{name}: granted by a {by}")
    for world in (before, after):
        state = world.rollouts[row.rollout].state
        _must(state in _MOVING, "I6", f"{name}: granted in a rollout that is {state}")
    _must(not before.is_latched, "I6", f"{name}: granted while the fleet is halted")
    _must(was.asking and row.grant_nonce == was.nonce, "I6", f"{name}: granted, and had not asked", was)
    held, spec = after.held(), after.rollouts[row.rollout].spec
    for scope in row.scopes:
        if scope not in was.permits:
            _must(held[scope] <= limit_of(spec, scope), "I4", f"{name}: {held[scope]} are away in {scope}")


def _never_above(before: World, after: World) -> None:
    """I4: what the engine gives leaves no scope above the limit of the rollout that gives it."""
    was, held = before.held(), after.held()
    for name, rollout in after.rollouts.items():
        given = {
            scope
            for key, row in after.rows.items()
            if key[0] == name and is_new_grant(before.rows.get(key, row), row)
            for scope in row.scopes
        }
        for scope in given:
            limit = max(limit_of(rollout.spec, scope), was[scope])
            _must(held[scope] <= limit, "I4", f"{name}: {held[scope]} are away in {scope}, expected {limit}")


def _live_once(after: World) -> None:
    """I7: a device is at one update."""
    live: defaultdict[str, list[str]] = defaultdict(list)
    for row in after.rows.values():
        if is_live(row):
            live[row.device].append(row.rollout)
    for device, names in live.items():
        _must(len(names) == 1, "I7", f"{device}: is at {len(names)} updates at once", names)


def _row(was: Assignment, row: Assignment, by: By, verb: str, rollout: Rollout) -> None:
    """I8 and I15, of one device's place."""
    name = f"{row.rollout}/{row.device}"
    _must((was.stage, was.place) == (row.stage, row.place), "I5", f"{name}: its place changed")
    mended = was.state == State.INCONSISTENT and by is By.REPORT and not row.scopes
    _must(was.scopes == row.scopes or mended, "I5", f"{name}: its scopes changed")
    _must(row.attempt >= was.attempt, "I15", f"{name}: attempt {row.attempt} after {was.attempt}")
    if by is By.REPORT:
        _must(row.attempt == was.attempt and row.offered_at == was.offered_at, "I6", f"{name}: offered by a report")
        _must(row.retried == was.retried, "I8", f"{name}: a report counted as a retry")
    for kind, tried in row.retried.items():
        plan = {str(k): retry for k, retry in rollout.spec.retries.items()}.get(kind)
        _must(plan is not None and tried <= plan.times, "I8", f"{name}: tried {tried} times after {kind}")
    if was.is_terminal and was.settled and not (by is By.ORDER and verb == "retry"):
        if (was.state, was.code) == (row.state, row.code):
            _must(count_keys(was) == count_keys(row) or by is By.REPORT, "I8", f"{name}: over, and counts otherwise")
            return
        _must(by is By.REPORT, "I8", f"{name}: {was.state} became {row.state} by {by}")
        _must(was.outcome_digest is None, "I8", f"{name}: {was.state} became {row.state} against its own word")
        _must(was.state != EXCLUDED, "I8", f"{name}: excluded, and became {row.state}")
        _must(row.state in (FINISHED if was.state == TIMED_OUT else OUTCOMES), "I8", f"{name}: became {row.state}")


def _stages(before: World, after: World, name: str, now: datetime, by: By, verb: str) -> None:
    """I5 and I16: stages open in order, and pass by their rule or by a person."""
    found, rollout = after.stages[name], after.rollouts[name]
    counts = {stage.position: figures for stage, figures in before.judged(name)}
    for was, stage in zip(before.stages[name], found, strict=True):
        if was == stage:
            continue
        what = f"{name}: stage {stage.name}: {was.state} became {stage.state}"
        _must(was.state is not StageState.PASSED, "I5", what)
        _must(stage.state is not StageState.PENDING or was.state is StageState.PENDING, "I5", what)
        if by is By.ORDER:
            promoted = verb == "promote" and stage.state is StageState.PASSED
            _must(promoted or verb == "retry" or was.state is StageState.PENDING, "I5", what)
            continue
        _must(before.rollouts[name].state is _S.RUNNING and not before.is_latched, "I6", what)
        if was.state is StageState.PENDING:
            _must(all(s.state is StageState.PASSED for s in found[: stage.position]), "I5", what)
        if stage.state in (StageState.PASSED, StageState.AWAITING_APPROVAL) and was.state is not stage.state:
            plan = rollout.spec.stages[stage.position]
            figure = success_rule(counts[stage.position], rollout.spec, plan)
            _must(figure.met, "I16", f"{what}: {figure.text}")
            last = stage.position == len(found) - 1
            if not last:
                waited = now - stage.soaking_since if stage.soaking_since else timedelta()
                _must(waited >= timedelta(seconds=soak_s(rollout.spec, plan)), "I16", f"{what} after {waited}")
                if stage.state is StageState.PASSED:
                    asks = plan.approval if plan.approval is not None else rollout.spec.approval
                    _must(not asks or rollout.spec.emergency, "I16", f"{what} without a person")


def stuck(world: World, now: datetime) -> Iterator[str]:
    """Rollouts that neither ended nor wait for a person, nor for something that a person holds; for I10."""
    held = world.held()
    for name, rollout in world.rollouts.items():
        if rollout.state is not _S.RUNNING or rollout.ended_at is not None or world.is_latched:
            continue
        if rollout.spec.members.dynamic and not _is_over(rollout, now):
            continue
        rows = world.members(name)
        waits = {row.held_by.split(":", 1)[1] for row in rows if row.held_by.startswith("rollout:")}
        if any(world.rollouts[other].state is not _S.RUNNING for other in waits):
            continue  # a device of a rollout that a person holds
        if any(held[row.held_by.removeprefix("scope:")] for row in rows if row.held_by.startswith("scope:")):
            continue  # only a device that is left inconsistent, or that another rollout keeps, holds a permit for ever
        under_way = next((stage for stage in world.stages[name] if stage.state is not StageState.PASSED), None)
        if under_way is not None and under_way.state is not StageState.PENDING:
            done = all(row.is_terminal or row.verdict for row in rows if row.stage <= under_way.position)
            if under_way.state is StageState.AWAITING_APPROVAL or done:
                counts = {stage.position: figures for stage, figures in world.judged(name)}[under_way.position]
                rule = success_rule(counts, rollout.spec, rollout.spec.stages[under_way.position])
                if under_way.state is StageState.AWAITING_APPROVAL or not rule.met:
                    continue  # a person promotes, or aborts
        yield name
