"""A bar for what takes minutes: the making of deltas. On a terminal only; elsewhere nothing is printed."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from orchestrator.publisher import deltas


@contextmanager
def delta_progress(console: Console | None = None) -> Iterator[deltas.Progress]:
    """What ``create_release`` tells is drawn; the bar is gone when the deltas are made, or given up."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield deltas.tell_nobody
        return
    columns = (TextColumn("deltas"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("deltas", total=None)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield tell
