"""Hook scripts: real programs, asked in order; what they say is bounded, and what is not safe is not run."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from device_client.gates.gate import Gate, GateContext, Ready, Refuse, Verdict, Wait, judge_all
from device_client.gates.hooks import MAX_HOOKS, HookGate, find_hooks, judge
from device_client.programs import Ended
from protocol.clock import ManualClock
from protocol.manifest import Policy
from protocol.states import Phase

CONTEXT = GateContext(Phase.INSTALL, "r-1", 0, Policy(), "ab" * 32, version="2.0.0")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 25, tzinfo=UTC))


def _hook(folder: Path, name: str, script: str, mode: int = 0o755, phase: str = "install") -> Path:
    path = folder / phase / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)
    return path


async def _judge(folder: Path, clock: ManualClock, timeout_s: float = 10) -> list[Verdict]:
    return list(await HookGate(folder, timeout_s, clock).judge(CONTEXT))


async def test_no_hooks(tmp_path: Path, clock: ManualClock) -> None:
    """No folder, none for this phase, or an empty one: ready."""
    assert await _judge(tmp_path / "absent", clock) == []
    _hook(tmp_path, "10-other", "exit 21", phase="download")
    assert await _judge(tmp_path, clock) == []
    (tmp_path / "install").mkdir()
    assert await _judge(tmp_path, clock) == []


async def test_all_are_asked_and_all_have_their_reason(tmp_path: Path, clock: ManualClock) -> None:
    """In the order of their names, none stops the next one, and every one that is not ready is shown."""
    order = tmp_path / "order"
    _hook(tmp_path, "30-last", f"echo 30 >> {order}; echo pump runs >&2; exit 21")
    _hook(tmp_path, "10-first", f"echo 10 >> {order}; exit 21")
    _hook(tmp_path, "20-refuses", f"echo 20 >> {order}; echo not this one >&2; exit 1")
    _hook(tmp_path, "25-ready", f"echo 25 >> {order}; echo whatever; exit 0")
    gates: list[Gate] = [HookGate(tmp_path, 10, clock)]
    judgement = await judge_all(gates, CONTEXT)
    assert order.read_text().split() == ["10", "20", "25", "30"]
    assert [(reason.gate, reason.code, reason.detail) for reason in judgement.reasons] == [
        ("hook", "hook_refused", "20-refuses: not this one (code 1; 21 would be to wait)"),
        ("hook", "hook_wait", "10-first: gave no reason"),
        ("hook", "hook_wait", "30-last: pump runs"),
    ]
    assert [reason.code for reason in judgement.refusals] == ["hook_refused"]


async def test_what_a_hook_is_told(tmp_path: Path, clock: ManualClock) -> None:
    """Phase, rollout, version and release come as one JSON object; nothing of the agent's environment does."""
    told = tmp_path / "told"
    _hook(tmp_path, "hook", f"cat > {told}; env | grep -c SECRET >&2; exit 21")
    os.environ["SECRET_OF_THE_AGENT"] = "1"
    try:
        (verdict,) = await _judge(tmp_path, clock)
    finally:
        del os.environ["SECRET_OF_THE_AGENT"]
    said = {"phase": "install", "rollout": "r-1", "version": "2.0.0", "release": "ab" * 32}
    assert json.loads(told.read_text()) == said
    assert verdict == Wait("hook_wait", "hook: 0")


async def test_what_a_hook_says(tmp_path: Path, clock: ManualClock) -> None:
    """A code, a sentence and a time of its own; until that time it is not asked again, for this rollout and phase."""
    asked = tmp_path / "asked"
    answer = '{"code": "surgery", "detail": "in use by a patient", "retry_after_s": 600}'
    _hook(tmp_path, "hook", f"echo >> {asked}; echo '{answer}'; exit 21")
    gate = HookGate(tmp_path, 10, clock)
    for _ in range(2):
        assert await gate.judge(CONTEXT) == [Wait("surgery", "hook: in use by a patient", 600)]
    assert len(asked.read_text()) == 1
    clock.advance(600)
    await gate.judge(CONTEXT)
    assert len(asked.read_text()) == 2


@pytest.mark.parametrize(
    "out",
    [
        "[]",
        '{"code": "Not A Code"}',
        '{"retry_after_s": 1e9}',
        '{"retry_after_s": -1}',
        '{"retry_after_s": NaN}',
        '{"code": "one"}\n{"code": "two"}',
        "[" * 10_000,
        '{"detail": "' + "x" * 5000 + '"}',
    ],
    ids=["list", "code", "too late", "negative", "nan", "two lines", "deep", "long"],
)
def test_what_is_out_of_bounds_says_nothing(out: str) -> None:
    """The exit code counts all the same."""
    assert judge("hook", Ended(21, "", "", out)) == Wait("hook_wait", "hook: gave no reason")


def test_no_cursor_moves() -> None:
    """A sentence carries no control characters to the terminal of who reads it, and has an end."""
    verdict = judge("hook", Ended(21, "", "", json.dumps({"detail": "\x1b[2J\x07" + "y" * 900})))
    assert isinstance(verdict, Wait)
    assert verdict.detail.startswith("hook: ?[2J?yy")
    assert len(verdict.detail) == 400


async def test_hangs_and_deaths_wait(tmp_path: Path, clock: ManualClock) -> None:
    """A hook that does not end in time, is killed or cannot be run has said nothing: the device waits."""
    _hook(tmp_path, "1-hangs", "sleep 60")
    _hook(tmp_path, "2-dies", "kill -KILL $$")
    _hook(tmp_path, "3-text", "exit 0", mode=0o644)
    verdicts = await _judge(tmp_path, clock, 0.3)
    assert [verdict.code for verdict in verdicts if isinstance(verdict, Wait)] == ["hook_failed"] * 3
    assert "1-hangs did not end within 0.3 s" in str(verdicts[0])


def test_what_is_unsafe_is_named_and_not_run(tmp_path: Path) -> None:
    """Writable by others, of another owner, a link, a folder: each waits under its name; the safe one is a hook."""
    good = _hook(tmp_path, "good", "exit 0")
    _hook(tmp_path, ".hidden", "exit 1")
    _hook(tmp_path, "group", "exit 0", mode=0o775)
    _hook(tmp_path, "others", "exit 0", mode=0o757)
    (good.parent / "link").symlink_to(good)
    (good.parent / "sub").mkdir()
    hooks, unsafe = find_hooks(good.parent, os.geteuid())
    assert hooks == [good]
    assert [str(verdict.detail).split(": ")[0] for verdict in unsafe if isinstance(verdict, Wait)] == [
        str(good.parent / name) for name in ("group", "link", "others", "sub")
    ]
    assert {verdict.code for verdict in unsafe if isinstance(verdict, Wait)} == {"hook_unsafe"}


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_another_owner(tmp_path: Path) -> None:
    """Root's hooks and the agent's own are run, another user's are not."""
    path = _hook(tmp_path, "hook", "exit 0")
    os.chown(path, 4711, -1)
    assert find_hooks(path.parent, 0)[0] == []
    assert find_hooks(path.parent, 4711)[0] == [path]


def test_a_folder_that_others_may_write(tmp_path: Path) -> None:
    """Nothing in it is run: another could be put in the place of what was looked at."""
    path = _hook(tmp_path, "hook", "exit 0")
    path.parent.chmod(0o777)
    hooks, unsafe = find_hooks(path.parent, os.geteuid())
    assert (hooks, len(unsafe)) == ([], 1)


def test_too_many(tmp_path: Path) -> None:
    """A bound on hooks is a bound on the time that judging takes."""
    for number in range(MAX_HOOKS + 1):
        path = _hook(tmp_path, f"hook{number:02}", "exit 0")
    hooks, unsafe = find_hooks(path.parent, os.geteuid())
    assert hooks == []
    assert "found 17" in str(unsafe)


def test_ready() -> None:
    """What a hook writes when it is ready is nobody's concern."""
    assert judge("hook", Ended(0, "", "noise", '{"code": "no"}')) == Ready()
    assert isinstance(judge("hook", Ended(255, "", "", "")), Refuse)
