"""Is the audit log the one that was written: chain, signed heads, counters and decisions, in one pass. Pure.

The caller brings entries in the order of their ids, what was signed of the log, and at the end the counters as the
database has them. Memory is counters and signed heads, whatever the log's length.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.model.audit import AuditEntry, AuditKind, Problem, check_link
from orchestrator.model.audit_counts import Counted, Recount, differences
from orchestrator.rollouts.replaying import check_decision, facts_of, is_replayable


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody outside of the database says which hash an entry has.

    Attributes:
        source: Who, as the sentence of a problem begins.
    """

    entry: int
    hash: str
    source: str


@dataclass(slots=True)
class Checked:
    """What was looked at."""

    entries: int = 0
    last: int = 0
    hash: str = ""
    claims: int = 0
    anchored: int = 0  # the highest entry that a claim names
    moves: int = 0
    decisions: int = 0
    other_versions: int = 0
    counters: int = 0
    recounted: list[int] = field(default_factory=list)


class Verification:
    """One pass over a log."""

    def __init__(self, claims: Iterable[Claim] = (), rollout: str = "") -> None:
        """Nothing was seen yet.

        Args:
            rollout: Whose counters and decisions are judged; empty: everybody's. The chain is always judged whole.
        """
        self.checked = Checked()
        self._rollout = rollout
        self._former: AuditEntry | None = None
        self._recount = Recount()
        self._claims: dict[int, dict[str, Claim]] = {}
        for claim in claims:
            if claim.entry:
                self._claims.setdefault(claim.entry, {}).setdefault(claim.hash, claim)
                self.checked.anchored = max(self.checked.anchored, claim.entry)

    def see(self, entry: AuditEntry, unreadable: str = "") -> list[Problem]:
        """The next entry.

        Args:
            unreadable: Why its body could not be read; "" when it could.
        """
        found = [Problem(entry.id, f"{unreadable}: this entry was changed after it was written")] if unreadable else []
        if not unreadable or (self._former and entry.id != self._former.id + 1):
            found += check_link(self._former, entry)
        found += self._judge_claims(entry)
        self.checked.entries += 1
        self.checked.last, self.checked.hash = entry.id, entry.hash
        self._former = entry
        if unreadable:
            return found
        if entry.kind == AuditKind.DECISION and self._rollout in {"", entry.rollout}:
            found += self._judge_decision(entry)
        try:
            self._recount.follow(entry)
        except ValueError as error:
            found.append(Problem(entry.id, f"its figures cannot be read: {error}"))
        if entry.kind == AuditKind.MOVES:
            self.checked.moves += 1
        if entry.kind == AuditKind.RECOUNT:
            self.checked.recounted.append(entry.id)
        return found

    def finish(self, counts: Mapping[str, Counted]) -> Iterator[Problem]:
        """After the last entry: what was signed and is not there, and counters that are not what the log comes to.

        Args:
            counts: By rollout, as stored.
        """
        for number in sorted(self._claims):
            for claim in self._claims[number].values():
                yield Problem(
                    0,
                    f"{claim.source} names entry {number}, the log ends at {self.checked.last}: entries were taken "
                    "from its end, or an older database was put back",
                )
        names = {*counts, *self._recount.rollouts}
        for rollout in sorted(names & {self._rollout} if self._rollout else names):
            stored = counts.get(rollout, {})
            self.checked.counters += sum(map(len, stored.values()))
            for text in differences(self._recount.of(rollout), stored):
                yield Problem(
                    0, f"rollout {rollout}: {text}: a counter, or the log, was changed by other hands than Flagship's"
                )

    def _judge_claims(self, entry: AuditEntry) -> list[Problem]:
        claims = self._claims.pop(entry.id, {})
        self.checked.claims += len(claims)
        return [
            Problem(
                entry.id,
                f"{claim.source} says hash {claim.hash[:12]}, found {entry.hash[:12]}: the log was written anew, at "
                "this entry or before it, or it is that of another database",
            )
            for claim in claims.values()
            if claim.hash != entry.hash
        ]

    def _judge_decision(self, entry: AuditEntry) -> list[Problem]:
        try:
            figures = entry.figures()
            said = figures.get("facts", {}).get("counts", {})
            counted: Counted = {int(stage): dict(keys) for stage, keys in said.items()}
            again = is_replayable(entry)
            if again:
                counted = facts_of(figures).counts
        except (ValueError, TypeError, AttributeError) as error:
            return [Problem(entry.id, f"its facts cannot be read: {error}")]
        found = [
            Problem(entry.id, f"the engine was told other counters than the log comes to: {text}")
            for text in differences(self._recount.of(entry.rollout), counted)
        ]
        self.checked.decisions += again
        self.checked.other_versions += not again
        problem = check_decision(entry)
        return [*found, problem] if problem else found
