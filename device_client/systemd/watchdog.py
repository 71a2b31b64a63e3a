"""``flagship-device watchdog``: reboots a device whose new version never says whether it works.

The agent ends every trial by itself, by a commit or a rollback. Where it cannot, because the new version keeps it from
running, only a reboot brings the bootloader's fallback about. So something else looks now and then, started by a timer
and short: an update that has been on trial for longer than both of the agent's deadlines together, while no agent
answers, is worth a reboot. How long that is, is counted by looks of one boot on the clock that no one can set.
"""

import argparse
import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from device_client.agent.journal import MAX_JOURNAL_BYTES, Update
from device_client.background import in_background
from device_client.boot import boot_id
from device_client.config import DeviceHome, DeviceSettings, load
from device_client.durable import read_capped, write_durably
from device_client.errors import DeviceError, NotFoundError, StorageError, UnreachableError
from device_client.local_socket import request
from device_client.logs import log_to_stderr
from device_client.programs import run_program
from protocol.states import State

log = structlog.get_logger(__name__)

ON_TRIAL = frozenset({State.ACTIVATING, State.VERIFYING})
READ_DEADLINE_S = 30.0
REBOOT_DEADLINE_S = 60.0
M = TypeVar("M", bound=BaseModel)


class Sight(BaseModel):
    """``state/watchdog.json``: since when a trial has been seen.

    Attributes:
        since_s: Seconds since the boot ``boot``, sleep included.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    rollout: str
    attempt: int
    boot: str
    since_s: float


def look(update: Update | None, seen: Sight | None, boot: str, now_s: float) -> Sight | None:
    """Since when the open update has been on trial, as far as was seen in this boot; None where none is. Pure."""
    if update is None or update.state not in ON_TRIAL:
        return None
    same = seen is not None and (seen.rollout, seen.attempt, seen.boot) == (
        update.offer.rollout,
        update.offer.attempt,
        boot,
    )
    if seen is not None and same and seen.since_s <= now_s:
        return seen
    return Sight(rollout=update.offer.rollout, attempt=update.offer.attempt, boot=boot, since_s=now_s)


def add_to(verbs: "argparse._SubParsersAction[Any]") -> None:
    """Make this command part of ``flagship-device``."""
    command = verbs.add_parser("watchdog", help="reboot if an update stays on trial and no agent answers; for a timer")
    command.add_argument("--config", type=Path, required=True, metavar="FILE", help="device.toml, or its home")
    command.set_defaults(run=_watchdog)


def _watchdog(options: argparse.Namespace) -> None:
    home, settings = load(options.config)
    log_to_stderr()
    print(asyncio.run(watch(home, settings)))


def _uptime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def watch(home: DeviceHome, settings: DeviceSettings, uptime_s: Callable[[], float] = _uptime_s) -> str:
    """Look once; reboot if it is time.

    Args:
        uptime_s: Seconds since the boot, sleep included.

    Returns:
        What was found, in one sentence.

    Raises:
        StorageError: The disk does not answer in time.
        DeviceError: The reboot could not be ordered.
    """
    note = home.state / "watchdog.json"
    try:
        async with asyncio.timeout(READ_DEADLINE_S):
            update, seen = await in_background(lambda: (_read(home.journal, Update), _read(note, Sight)))
    except TimeoutError as error:
        raise StorageError(f"{home.journal}: not read within {READ_DEADLINE_S:g} s; look at the disk") from error
    now_s = uptime_s()
    sight = look(update, seen, boot_id(), now_s)
    if sight is None:
        note.unlink(missing_ok=True)
        return "no update is on trial"
    if sight != seen:
        write_durably(note, sight.model_dump_json().encode())
    limit_s = settings.timing.verify_timeout_s + settings.timing.network_deadline_s
    what = f"rollout {sight.rollout} has been on trial for {timedelta(seconds=int(now_s - sight.since_s))}"
    if now_s - sight.since_s < limit_s:
        return f"{what}, at most {timedelta(seconds=int(limit_s))}"
    if await asyncio.to_thread(_answers, home):
        return f"{what}; its agent answers and will end it"
    return await _reboot(settings, f"{what}, and no agent answers")


async def _reboot(settings: DeviceSettings, why: str) -> str:
    program = settings.installer.reboot
    log.error("rebooting", why=why, program=program[0])
    ended = await run_program(program, REBOOT_DEADLINE_S, {}, what="reboot")
    if not ended.ok:
        wrote = " ".join(ended.log[-300:].split()) or "it wrote nothing"
        raise DeviceError(f"{why}; {ended.detail}: {wrote}; see [installer] reboot")
    return f"{why}: rebooting"


def _read(path: Path, kind: type[M]) -> M | None:
    """What is kept there; None where nothing is, or it is damaged: the agent deals with that."""
    try:
        return kind.model_validate_json(read_capped(path, MAX_JOURNAL_BYTES))
    except (NotFoundError, ValidationError):
        return None


def _answers(home: DeviceHome) -> bool:
    try:
        request(home.socket, "status")
    except UnreachableError:
        return False
    except DeviceError:
        return True
    return True
