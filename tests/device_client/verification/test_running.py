"""The health check: its exit code, its deadline, its children, and what it wrote."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from device_client.programs import LOG_BYTES, clean
from device_client.verification.running import run_health


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


async def test_good() -> None:
    """A check that ends with 0 is good, with what it wrote on both channels."""
    result = await run_health(["sh", "-c", "echo out; echo err >&2"], 20, {})
    assert result.ok
    assert result.detail == ""
    assert result.log == "out\nerr\n"


async def test_none() -> None:
    """No check configured is good."""
    assert (await run_health([], 1, {})).ok


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["sh", "-c", "exit 3"], "ended with code 3"),
        (["sh", "-c", "kill -9 $$"], "ended with signal 9"),
        (["/no/such/check"], "/no/such/check cannot be run: No such file"),
        (["/etc/passwd"], "cannot be run: Permission denied"),
        (["a\0b"], "cannot be run"),
    ],
)
async def test_bad(argv: list[str], named: str) -> None:
    """Anything but 0 is bad, with one clause that says what happened."""
    result = await run_health(argv, 20, {})
    assert not result.ok
    assert named in result.detail


async def _gone(pid: int) -> None:
    async with asyncio.timeout(5):
        while _lives(pid):
            await asyncio.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


async def test_a_timeout_kills_the_whole_group(tmp_path: Path) -> None:
    """A check that does not end is killed with its children, in time, and what it wrote is kept."""
    script = f"sleep 300 & echo $! > {tmp_path}/child; echo started; wait"
    started = time.monotonic()
    result = await run_health(["sh", "-c", script], 0.5, {})
    assert time.monotonic() - started < 5
    assert not result.ok
    assert "did not end within 0.5 s" in result.detail
    assert result.log == "started\n"
    await _gone(int((tmp_path / "child").read_text()))


async def test_a_timeout_kills_what_ignores_signals() -> None:
    """SIGTERM and SIGINT may be ignored; the check ends all the same."""
    result = await run_health(["sh", "-c", "trap '' TERM INT HUP; while :; do sleep 1; done"], 0.3, {})
    assert not result.ok


async def test_children_left_behind_do_not_hold_it_up(tmp_path: Path) -> None:
    """A check that ends and leaves a child with the pipe open is judged by its own exit; the child is killed."""
    started = time.monotonic()
    result = await run_health(["sh", "-c", f"sleep 300 & echo $! > {tmp_path}/child; exit 0"], 60, {})
    assert result.ok
    assert time.monotonic() - started < 5
    await _gone(int((tmp_path / "child").read_text()))


async def test_cancelling_kills_it(tmp_path: Path) -> None:
    """A check that is not wanted any more does not go on alone."""
    task = asyncio.create_task(run_health(["sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 300"], 60, {}))
    async with asyncio.timeout(5):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _gone(int((tmp_path / "pid").read_text()))


async def test_the_end_of_a_long_log() -> None:
    """Only the last 10 KiB are kept, however much is written."""
    result = await run_health(_python("print('x' * 5_000_000); print('the end')"), 30, {})
    assert result.ok
    assert len(result.log) <= LOG_BYTES
    assert result.log.endswith("the end\n")


async def test_environment_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check sees what it is given and nothing of the agent's own environment."""
    monkeypatch.setenv("SECRET", "hunter2")
    result = await run_health(["sh", "-c", "env; pwd"], 20, {"FLAGSHIP_VERSION": "1.1.0"}, tmp_path)
    assert "FLAGSHIP_VERSION=1.1.0" in result.log
    assert "hunter2" not in result.log
    assert str(tmp_path) in result.log


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain\n\ttext", "plain\n\ttext"),
        (b"\x1b[2Jgone\x07", "?[2Jgone?"),
        (b"over\rwritten\r\n", "over?written\n"),
        (b"\xff\xfe", "??"),
        ("right\u202eleft".encode(), "right?left"),
        (b"nul\0", "nul?"),
        ("Grüße".encode(), "Grüße"),
    ],
)
def test_clean(raw: bytes, text: str) -> None:
    """No character that moves a cursor or turns text around is left."""
    assert clean(raw).replace("\ufffd", "?") == text
