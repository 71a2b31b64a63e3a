"""The bar for deltas: drawn on a terminal, silent elsewhere, gone when they are made."""

import io

from rich.console import Console

from orchestrator.cli.delta_progress import delta_progress


def drawn(*, terminal: bool) -> str:
    """What is written while deltas are made."""
    out = io.StringIO()
    with delta_progress(Console(file=out, force_terminal=terminal, width=100)) as tell:
        tell(0, 2_000_000)
        tell(2_000_000, 2_000_000)
    return out.getvalue()


def test_a_terminal_sees_how_far_it_is() -> None:
    """Bytes that were tried of all that there are; the line is erased at the end."""
    text = drawn(terminal=True)
    assert "deltas" in text
    assert "2.0/2.0 MB" in text
    assert "\x1b[2K" in text


def test_a_file_sees_nothing() -> None:
    """A log or a pipe holds no bars."""
    assert drawn(terminal=False) == ""
