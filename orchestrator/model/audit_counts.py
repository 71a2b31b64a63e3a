"""The counters of rollouts, recomputed from the audit log alone. Pure; memory is counters, not devices."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.model.assignment import Assignment, count_keys
from orchestrator.model.audit import AuditEntry, AuditKind

MOVES_PER_ENTRY = 2000
Move = list[Any]
"""[rollout, stage, device, keys before, keys after]; keys as ``model.assignment.count_keys``, sorted."""
Counted = Mapping[int, Mapping[str, int]]
"""Stage -> key -> devices."""


def moves_of(changes: Iterable[tuple[Assignment | None, Assignment]]) -> list[Move]:
    """Those changes that change what an assignment counts as; one that joins was nothing before."""
    found: list[Move] = []
    for before, after in changes:
        keys = count_keys(after)
        were = frozenset() if before is None else count_keys(before)
        if keys != were:
            found.append([after.rollout, after.stage, after.device, sorted(were), sorted(keys)])
    return found


def counts_rows(rows: Iterable[tuple[str, int, str, int]]) -> list[list[Any]]:
    """Counters for the body of ``begin`` and ``recount``, from (rollout, stage, key, n)."""
    return [[rollout, stage, key, n] for rollout, stage, key, n in rows if n and counts_devices(key)]


def counts_devices(key: str) -> bool:
    """Whether a counter follows from moves; sums of bytes do not."""
    return not key.startswith("bytes:")


class Recount:
    """Follows a log from its first entry on, and knows the counters at each place."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[tuple[int, str]]] = {}

    def follow(self, entry: AuditEntry) -> None:
        """Go one entry further.

        Raises:
            ValueError: Its body is not what an entry of its kind has.
        """
        if entry.kind in {AuditKind.BEGIN, AuditKind.RECOUNT}:
            self._set(entry.figures().get("counts", []))
        elif entry.kind == AuditKind.MOVES:
            self._move(entry.figures().get("moves", []))

    def of(self, rollout: str) -> dict[int, dict[str, int]]:
        """The counters of a rollout, by stage and key; zeros left out."""
        found: dict[int, dict[str, int]] = {}
        for (stage, key), n in self._counts.get(rollout, Counter()).items():
            if n:
                found.setdefault(stage, {})[key] = n
        return found

    @property
    def rollouts(self) -> list[str]:
        """Every rollout that has counters."""
        return sorted(self._counts)

    def _set(self, rows: Sequence[Any]) -> None:
        self._counts = {}
        try:
            for rollout, stage, key, n in rows:
                self._counts.setdefault(rollout, Counter())[int(stage), str(key)] = int(n)
        except TypeError as error:
            raise ValueError("its counts are no list of [rollout, stage, key, n]") from error

    def _move(self, moves: Sequence[Any]) -> None:
        try:
            for rollout, stage, _, before, after in moves:
                counts = self._counts.setdefault(rollout, Counter())
                for key in before:
                    counts[stage, key] -= 1
                for key in after:
                    counts[stage, key] += 1
        except TypeError as error:
            raise ValueError("its moves are no list of [rollout, stage, device, before, after]") from error


def differences(expected: Counted, found: Counted) -> Iterator[str]:
    """Where counters are not what the log says; sums of bytes are not looked at."""
    for stage in sorted({*expected, *found}):
        said, is_now = expected.get(stage, {}), found.get(stage, {})
        for key in sorted({*said, *is_now}):
            if counts_devices(key) and said.get(key, 0) != is_now.get(key, 0):
                yield f"stage {stage}, {key}: the log comes to {said.get(key, 0)}, found {is_now.get(key, 0)}"
