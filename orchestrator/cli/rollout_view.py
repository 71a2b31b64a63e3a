"""A rollout on a screen: once, or live until it ends."""

import asyncio
import sys
from contextlib import aclosing, nullcontext
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from orchestrator.cli.download_view import DownloadView, ways
from orchestrator.cli.output import Format, cell, console, show_json, table
from orchestrator.cli.watching import StatusReader
from orchestrator.config import Home
from orchestrator.errors import HaltedError, NotFoundError, TimedOutError
from orchestrator.model.rollout import RolloutState
from protocol.status_messages import RolloutStatus, RuleFigure, StageStatus
from protocol.topics import Kind

FIRST_S = 5.0
"""A retained status comes at once; after this long there is none."""
_COLUMNS = ("stage", "state", "devices", "offered", "where they stand", "bytes", "waiting for", "rules")
_ENDS = {RolloutState.COMPLETED: 0, RolloutState.HALTED: 6, RolloutState.ABORTED: 6}


async def read_rollout(home: Home, rollout: str) -> RolloutStatus:
    """The newest status of one rollout.

    Raises:
        NotFoundError: The broker has none.
        UnreachableError: The broker does not answer.
    """
    reader = StatusReader(home)
    try:
        async with asyncio.timeout(FIRST_S), aclosing(reader.read(_topic(rollout))) as statuses:
            async for status in statuses:
                if isinstance(status, RolloutStatus):
                    return status
    except TimeoutError:
        pass
    raise _unknown(rollout)


async def follow_rollout(home: Home, rollout: str, output: Format, limit_s: float | None) -> None:
    """Show every change until the rollout ends; returns when it completed.

    Args:
        limit_s: None waits as long as it takes.

    Raises:
        HaltedError: It halted or was aborted.
        NotFoundError: The broker has no status of it.
        TimedOutError: It did not end in time.
        UnreachableError: The broker does not answer.
    """
    status: RolloutStatus | None = None
    screen = _Screen(output)
    try:
        async with asyncio.timeout(FIRST_S if limit_s is None else min(FIRST_S, limit_s)) as deadline:
            began = asyncio.get_running_loop().time()
            with screen.live:
                async with aclosing(StatusReader(home).follow(_topic(rollout))) as statuses:
                    async for found in statuses:
                        if not isinstance(found, RolloutStatus):
                            continue
                        if status is None:
                            deadline.reschedule(None if limit_s is None else began + limit_s)
                        screen.show(status, found)
                        status = found
                        if found.state in _ENDS:
                            break
    except TimeoutError:
        if status is None:
            raise _unknown(rollout) from None
        raise TimedOutError(f"rollout {rollout}: still {status.state} after {limit_s:g} s") from None
    if status is not None and _ENDS.get(RolloutState(status.state), 0):
        raise HaltedError(f"rollout {rollout} ({status.release}): {status.state}{_because(status)}")


def show_rollout(status: RolloutStatus, output: Format) -> None:
    """Print one status."""
    if output is Format.JSON:
        show_json(status.model_dump(mode="json"))
    else:
        console().print(render_rollout(status))


def render_rollout(status: RolloutStatus, view: DownloadView | None = None) -> RenderableType:
    """The rollout in a line, its stages in a table; ``view`` is what was seen of its downloads so far."""
    view = view or DownloadView()
    moved = view.total(status.moved)
    head = Text(
        f"{status.id}  {status.release}  {status.state}{cell(_because(status)) if status.reason else ''}\n"
        f"{status.members} devices: {status.succeeded} succeeded, {status.failed} failed, "
        f"{status.rolled_back} rolled back, {status.untouched} untouched"
        f"{f', {status.excluded} excluded' if status.excluded else ''}"
        f"{f'{chr(10)}{moved}' if moved else ''}"
    )
    return Group(head, table(_COLUMNS, [_stage(stage, view) for stage in status.stages]))


class _Screen:
    """A live table in a terminal, a line per change anywhere else."""

    def __init__(self, output: Format) -> None:
        self._json = output is Format.JSON
        made = console()
        live = made.is_terminal and not self._json
        self._live = Live(console=made, auto_refresh=False) if live else None
        self.live: Any = self._live or nullcontext()
        self._view = DownloadView()

    def show(self, before: RolloutStatus | None, after: RolloutStatus) -> None:
        """Show a status if something in it is new."""
        self._view.see(after)
        if before is not None and _facts(before) == _facts(after):
            return
        if self._live:
            self._live.update(render_rollout(after, self._view), refresh=True)
        elif self._json:
            show_json(after.model_dump(mode="json"))
        else:
            sys.stdout.write(_line(after, self._view) + "\n")
            sys.stdout.flush()


def _facts(status: RolloutStatus) -> dict[str, Any]:
    return status.model_dump(exclude={"at", "v"})


def _line(status: RolloutStatus, view: DownloadView) -> str:
    stages = ", ".join(f"{stage.name} {stage.state} ({cell(stage.counts)})" for stage in status.stages)
    moved = view.total(status.moved)
    return cell(
        f"{status.at:%H:%M:%S} {status.id} {status.state}{_because(status)}: {stages}{f'; {moved}' if moved else ''}"
    )


def _stage(stage: StageStatus, view: DownloadView) -> tuple[str, ...]:
    moved = stage.moved
    has_moved = moved is not None and (moved.present or moved.fetched)
    return (
        stage.name,
        stage.state,
        str(stage.members),
        str(stage.offered),
        cell({state: count for state, count in stage.counts.items() if count}),
        f"{view.percent(stage.name, moved)} %: {ways(moved)}" if moved is not None and has_moved else "-",
        cell(stage.reasons),
        "\n".join(_rule(figure) for figure in stage.figures) or "-",
    )


def _rule(figure: RuleFigure) -> str:
    limit = f"{figure.limit:.0%}" if figure.limit <= 1 else f"{figure.limit:g}"
    return f"{cell(figure.rule)} {figure.numerator}/{figure.denominator}, {'' if figure.met else 'not '}met at {limit}"


def _because(status: RolloutStatus) -> str:
    return f": {status.reason}" if status.reason else ""


def _topic(rollout: str) -> list[tuple[Kind, dict[str, str]]]:
    return [(Kind.STATUS_ROLLOUT, {"rollout": rollout})]


def _unknown(rollout: str) -> NotFoundError:
    return NotFoundError(
        f"rollout {rollout}: the broker has no status of it within {FIRST_S:g} s; see 'flagship rollout list'"
    )
