"""A person lets failed devices try once more: the next attempt lifts the quarantine of those that rolled back."""

from collections import Counter
from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import ConflictError
from orchestrator.model.assignment import Assignment
from orchestrator.model.failure import FailureClass, classes_of, failure_key
from orchestrator.model.rollout import Rollout
from orchestrator.rollouts import steps
from orchestrator.storage import assignments, devices, dirty
from orchestrator.storage.engine_rows import EngineRows
from protocol.topics import Kind

_PAGE = 500


class Meant(Protocol):
    """Which of the failed devices; none named means all."""

    @property
    def devices(self) -> Collection[str]:
        """By name."""
        ...

    @property
    def classes(self) -> Collection[FailureClass]:
        """By what became of them."""
        ...


async def try_again(conn: AsyncConnection, rollout: Rollout, given: Meant, now: datetime) -> list[Assignment]:
    """Let failed devices try once more; returns them as they were.

    Raises:
        ConflictError: None failed that way, or one that was named did not.
    """
    rows, after, again = EngineRows(conn, rollout.id), "", list[Assignment]()
    while page := await rows.failed(after, _PAGE):
        after = page[-1].device
        gone = await devices.not_enrolled(conn, [row.device for row in page])
        found = [row for row in page if row.settled and row.device not in gone and _is_meant(row, given)]
        changes = [(row, steps.try_again(row, now)) for row in found]
        await assignments.save_all(conn, changes)
        await dirty.mark(conn, Kind.STATUS_DEVICE, [row.device for row in found], now)
        again += found
    if missing := sorted(set(given.devices) - {row.device for row in again}):
        raise ConflictError(
            f"rollout {rollout.id}: {', '.join(missing[:3])} did not fail, or are gone; see 'flagship device explain'"
        )
    if not again:
        raise ConflictError(f"rollout {rollout.id}: no device failed that way; there is nothing to try again")
    return again


def _is_meant(row: Assignment, given: Meant) -> bool:
    if given.devices and row.device not in given.devices:
        return False
    return not given.classes or bool(classes_of(row.state, row.code) & set(given.classes))


def less_acknowledged(rollout: Rollout, again: list[Assignment]) -> dict[str, dict[str, int]]:
    """What a person acknowledged, without the failures that are undone: the next ones of the kind count again."""
    left = {stage: Counter(seen) for stage, seen in rollout.acknowledged.items()}
    for row in again:
        if (seen := left.get(row.stage)) is not None and seen[key := failure_key(row.state, row.code)] > 0:
            seen[key] -= 1
    return {str(stage): dict(seen) for stage, seen in left.items()}
