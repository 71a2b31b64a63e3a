"""A rollout on a screen: everything that matters, once per change."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from orchestrator.cli.output import Format
from orchestrator.cli.rollout_view import _Screen, render_rollout, show_rollout
from protocol.status_messages import RolloutStatus, RuleFigure, StageStatus

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
FIGURE = RuleFigure(rule="success", numerator=3, denominator=4, sample=1, limit=0.95, met=False, text="long text")
STAGE = StageStatus(
    name="canary", state="open", members=9, offered=5, counts={"succeeded": 3, "failed": 1, "pending": 0},
    reasons={"power: low": 2}, figures=[FIGURE],
)  # fmt: skip
STATUS = RolloutStatus(
    at=NOW, id="r-1", release="gateway/1.1.0", state="halted", reason="1 of 4 \x1b[2Jfailed", members=9, succeeded=3,
    failed=1, rolled_back=1, untouched=4, stages=[STAGE],
)  # fmt: skip


def test_everything_that_matters_is_shown() -> None:
    """State with its reason, counts without zeros, what devices wait for, the rules' figures."""
    screen = Console(file=io.StringIO(), width=160)
    screen.print(render_rollout(STATUS))
    assert isinstance(screen.file, io.StringIO)
    shown = screen.file.getvalue()
    for part in (
        "r-1  gateway/1.1.0  halted: 1 of 4", "9 devices: 3 succeeded, 1 failed, 1 rolled back, 4 untouched",
        "succeeded=3, failed=1", "power: low=2", "success 3/4, not met at 95%",
    ):  # fmt: skip
        assert part in shown
    assert "pending" not in shown
    assert "\x1b" not in shown


def test_once_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The status as it stands on the topic."""
    show_rollout(STATUS, Format.JSON)
    assert json.loads(capsys.readouterr().out) == STATUS.model_dump(mode="json")


@pytest.mark.parametrize("output", Format)
def test_the_same_status_again_is_no_line(output: Format, capsys: pytest.CaptureFixture[str]) -> None:
    """A status that only got a new time is not shown twice; a change is."""
    screen = _Screen(output)
    again = STATUS.model_copy(update={"at": NOW + timedelta(seconds=5)})
    changed = STATUS.model_copy(update={"succeeded": 4})
    with screen.live:
        screen.show(None, STATUS)
        screen.show(STATUS, again)
        screen.show(again, changed)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "\x1b" not in lines[0]


def test_a_terminal_gets_a_live_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The table is drawn over itself; the last one stays."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    screen = _Screen(Format.TABLE)
    with screen.live:
        screen.show(None, STATUS.model_copy(update={"state": "running", "reason": ""}))
        screen.show(None, STATUS)
    out = capsys.readouterr().out
    assert "\x1b[" in out
    assert "canary" in out
    assert out.rstrip().rfind("halted") > out.rfind("running")
