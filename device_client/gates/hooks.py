"""What the owner's own programs say: ``<folder>/<phase>/*``, asked in the order of their names.

A hook ends with 0 when the device is ready and with 21 when it is not yet; with anything else it refuses the rollout.
It reads one JSON object, ``{"phase", "rollout", "version", "release"}`` (release: sha256 hex of the sealed manifest),
and may write one line of JSON about what it answers: ``{"code", "detail", "retry_after_s"}``, none of them needed.

Whoever may write a hook decides what this device does: one that others than root and the agent's user own or may
write is not run. One that hangs, or is killed, has said nothing: the device waits.
"""

import asyncio
import json
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from device_client.gates.gate import GateContext, Ready, Refuse, Verdict, Wait
from device_client.programs import Ended, clean, run_program
from protocol.clock import Clock
from protocol.reports import GateCode

WAIT_CODE = 21
MAX_HOOKS = 16
MAX_RETRY_S = 86_400.0
MAX_DETAIL = 400
_SLACK_S = 5.0


class HookAnswer(BaseModel):
    """What a hook may say of its answer; out of bounds, none of it counts."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    code: GateCode | None = None
    detail: Annotated[str, StringConstraints(max_length=4096)] = ""
    retry_after_s: Annotated[float, Field(ge=0, le=MAX_RETRY_S, allow_inf_nan=False)] = 0


class HookGate:
    """Open while every hook of the phase says so. All are asked; each that is not ready has a reason of its own.

    Attributes:
        deadline_s: As long as all hooks together may take.
    """

    name = "hook"

    def __init__(self, folder: Path, timeout_s: float, clock: Clock) -> None:
        """Ask what lies below ``folder``, each for at most ``timeout_s``."""
        self._folder = folder
        self._timeout_s = timeout_s
        self._clock = clock
        self._held: dict[tuple[str, str, Path], tuple[float, Verdict]] = {}
        self.deadline_s = timeout_s * MAX_HOOKS + _SLACK_S

    async def judge(self, context: GateContext) -> Sequence[Verdict]:
        """Ask them one after the other."""
        hooks, unsafe = await asyncio.to_thread(find_hooks, self._folder / context.phase, os.geteuid())
        given = json.dumps(
            {
                "phase": context.phase,
                "rollout": context.rollout,
                "version": context.version,
                "release": context.manifest_digest,
            }
        ).encode()
        self._drop_held()
        return [*unsafe, *[await self._ask(hook, given, context) for hook in hooks]]

    async def _ask(self, hook: Path, given: bytes, context: GateContext) -> Verdict:
        key = (context.phase.value, context.rollout, hook)
        if key in self._held:  # it named a time; before that it need not be asked again
            return self._held[key][1]
        ended = await run_program([str(hook)], self._timeout_s, {}, Path("/"), what="hook", given=given, apart=True)
        verdict = judge(hook.name, ended)
        if isinstance(verdict, Wait) and verdict.retry_after_s:
            self._held[key] = self._clock.monotonic() + verdict.retry_after_s, verdict
        return verdict

    def _drop_held(self) -> None:
        now = self._clock.monotonic()
        self._held = {key: (until, verdict) for key, (until, verdict) in self._held.items() if until > now}


def judge(name: str, ended: Ended) -> Verdict:
    """Pure: what the end of one hook means."""
    if ended.code == 0:
        return Ready()
    answer = _answer(ended.out)
    said = answer.detail or next((line for line in reversed(ended.log.splitlines()) if line.strip()), "")
    detail = clean(f"{name}: {said or 'gave no reason'}".encode()).replace("\n", " ")[:MAX_DETAIL]
    if ended.code is None or ended.code < 0:
        return Wait("hook_failed", f"{ended.detail}; mend or remove it")
    if ended.code == WAIT_CODE:
        return Wait(answer.code or "hook_wait", detail, answer.retry_after_s)
    return Refuse(answer.code or "hook_refused", f"{detail} (code {ended.code}; {WAIT_CODE} would be to wait)")


def find_hooks(folder: Path, user: int) -> tuple[list[Path], list[Verdict]]:
    """The hooks by name, and what must not be run; both empty where there is no such folder. Blocking.

    Args:
        user: Numeric id of the agent's user, who may own hooks besides root.
    """
    try:
        names = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except OSError as error:
        return [], [Wait("hook_unsafe", f"{folder}: cannot be listed: {error.strerror}; let the agent read it")]
    if len(names) > MAX_HOOKS:
        return [], [Wait("hook_unsafe", f"{folder}: expected at most {MAX_HOOKS} hooks, found {len(names)}")]
    # Who may write a folder may put another file in the place of a safe one.
    if names and (why := _unsafe(folder, user, stat.S_ISDIR, "folder")):
        return [], [Wait("hook_unsafe", f"{folder}: {why}; nothing in it is run")]
    found = [(path, _unsafe(path, user, stat.S_ISREG, "regular file")) for path in names]
    return (
        [path for path, why in found if not why],
        [Wait("hook_unsafe", f"{path}: {why}; it is not run") for path, why in found if why],
    )


def _unsafe(path: Path, user: int, is_kind: Callable[[int], bool], kind: str) -> str:
    """Why it must not be trusted; empty where it may be."""
    try:
        found = path.lstat()
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    if not is_kind(found.st_mode):
        return f"expected a {kind}, found something else"
    if found.st_uid not in {0, user}:
        return f"expected root or uid {user} as its owner, found uid {found.st_uid}"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write it (mode {stat.S_IMODE(found.st_mode):o}); chmod go-w"
    return ""


def _answer(out: str) -> HookAnswer:
    lines = out.strip().splitlines()
    if len(lines) != 1:
        return HookAnswer()
    try:
        return HookAnswer.model_validate_json(lines[0])
    except ValidationError:
        return HookAnswer()
