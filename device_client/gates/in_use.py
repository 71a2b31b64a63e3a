"""Is someone using the device? Programs say so with files in ``run/inhibit.d/``, or on a connection (inhibit_socket).

    {"who": "player", "why": "a film is running", "until": "2026-11-23T12:00:00Z"}      until may be left out

A file that cannot be read inhibits too: whoever wrote it wanted something.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from device_client.durable import read_capped
from device_client.errors import DeviceError, NotFoundError
from device_client.gates.gate import GateContext, Ready, Verdict, Wait
from protocol.clock import Clock, rfc3339
from protocol.identifiers import IdText, check_id
from protocol.states import Phase

MAX_BYTES = 4096
MAX_NAMED = 3


class Inhibitor(BaseModel):
    """Who does not want to be interrupted, and until when."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    who: IdText
    why: str = ""
    until: AwareDatetime | None = None


class InUseGate:
    """Open while nobody inhibits; a download disturbs nobody, so it is asked from the install on."""

    name = "in_use"

    def __init__(self, directory: Path, clock: Clock, held: Callable[[], Sequence[Inhibitor]] = lambda: ()) -> None:
        """Look into ``directory``, and ask ``held`` for those that hold a connection."""
        self._directory = directory
        self._clock = clock
        self._held = held

    async def judge(self, context: GateContext) -> Verdict:
        """Judge the inhibitors as they are now."""
        if context.phase is Phase.DOWNLOAD or context.policy.allow_in_use:
            return Ready("not asked: a download disturbs nobody, or use may be interrupted")
        found = await asyncio.to_thread(inhibitors, self._directory, self._clock.now())
        return judge([*self._held(), *found])


def judge(found: list[Inhibitor]) -> Verdict:
    """Pure: any inhibitor closes the gate."""
    if not found:
        return Ready("nobody inhibits")
    named = "; ".join(f"{item.who}: {item.why}" if item.why else item.who for item in found[:MAX_NAMED])
    more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    return Wait("in_use", f"in use by {named}{more}")


def inhibitors(directory: Path, now: datetime) -> list[Inhibitor]:
    """Those that hold at ``now``, by name."""
    found: list[Inhibitor] = []
    for path in sorted(directory.glob("*.json")):
        try:
            item = Inhibitor.model_validate_json(read_capped(path, MAX_BYTES))
        except NotFoundError:
            continue
        except (DeviceError, ValidationError):
            item = Inhibitor(who="unknown", why=f"{path.name} cannot be read; remove it or mend it")
        if item.until is None or item.until > now:
            found.append(item)
    return found


def inhibit(directory: Path, who: str, why: str = "", until: datetime | None = None) -> None:
    """Say that ``who`` uses the device; replaces what ``who`` said before.

    Raises:
        ValueError: ``who`` is not an id.
    """
    check_id(who, "inhibitor")
    values = {"who": who, "why": why[:200], **({"until": rfc3339(until)} if until else {})}
    # Not durable on purpose: after a power cut nobody uses the device.
    beside = directory / f".{who}.new"
    beside.write_text(json.dumps(values))
    beside.rename(directory / f"{who}.json")


def release(directory: Path, who: str) -> None:
    """Say that ``who`` no longer uses the device; harmless when it never did."""
    (directory / f"{check_id(who, 'inhibitor')}.json").unlink(missing_ok=True)
