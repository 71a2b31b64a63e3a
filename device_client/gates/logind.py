"""Does systemd-logind know of someone who must not be disturbed: one that inhibits a shutdown, a person at work?"""

import asyncio
import os
from collections.abc import Callable, Sequence

from device_client.errors import UnreachableError
from device_client.gates.gate import GateContext, Ready, Verdict, Wait, unknown
from device_client.logind import Presence
from device_client.programs import clean
from protocol.states import Phase

MAX_NAMED = 3
_WHAT = frozenset({"shutdown", "sleep"})


class LogindGate:
    """Open while nobody blocks a shutdown or sleep and no person's session is in use; asked from the install on."""

    name = "logind"

    def __init__(self, presence: Callable[[], Presence] | None, *, waits: bool) -> None:
        """Ask ``presence``, which may block; None where the owner wants no one asked.

        Args:
            waits: Without an answer it is shut.
        """
        self._presence = presence
        self._waits = waits

    async def judge(self, context: GateContext) -> Sequence[Verdict] | Verdict:
        """Judge who is there now."""
        if self._presence is None:
            return Ready("not asked: [gates] logind is off")
        if context.phase is Phase.DOWNLOAD or context.policy.allow_in_use:
            return Ready()
        try:
            found = await asyncio.to_thread(self._presence)
        except UnreachableError as error:
            return unknown(f"inhibitors and sessions are not known: {error}", waits=self._waits)
        return judge(found, os.getpid())


def judge(found: Presence, own_pid: int) -> list[Verdict]:
    """Pure: one verdict on those who inhibit, one on those who sit before the device.

    Args:
        own_pid: Whose inhibitors do not count: one agent's of this process, while it installs, would shut all others'.
    """
    inhibitors = [
        f"{item.who}: {item.why}"
        for item in found.inhibitors
        if item.blocks and item.what & _WHAT and item.pid != own_pid
    ]
    sessions = [f"{item.user} on {item.seat}" for item in found.sessions if item.is_active and not item.is_idle]
    verdicts: list[Verdict] = []
    if inhibitors:
        verdicts.append(Wait("inhibited", f"shutdown or sleep is inhibited by {_named(inhibitors)}"))
    if sessions:
        verdicts.append(Wait("session", f"in use by {_named(sessions)}; nobody may be logged in there, or all be idle"))
    return verdicts


def _named(texts: Sequence[str]) -> str:
    named = clean("; ".join(text[:100] for text in texts[:MAX_NAMED]).encode()).replace("\n", " ")
    return named + (f" and {len(texts) - MAX_NAMED} more" if len(texts) > MAX_NAMED else "")
