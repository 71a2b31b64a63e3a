"""The word to the service manager: ready, how it stands, and that the event loop still turns. sd_notify(3).

Without ``NOTIFY_SOCKET`` nobody listens and nothing is said. The watchdog is fed by a task of its own on the agents'
event loop: a loop that hangs feeds it no more, and systemd starts the agent again. It is no part of an agent's tick on
purpose: that waits where a full disk keeps the journal, which no restart mends.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping

import structlog

log = structlog.get_logger(__name__)

TICK_S = 1.0
MAX_STATUS_CHARACTERS = 500


class ServiceManager:
    """Who started this process, if it wants to hear of it."""

    def __init__(self, address: str = "", watchdog_s: float = 0) -> None:
        """Name it.

        Args:
            address: Of its datagram socket, a path or ``@`` and an abstract name; empty: there is none.
            watchdog_s: After how long without a word it ends this process; 0: never.
        """
        self._address = address
        self._watchdog_s = watchdog_s

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "ServiceManager":
        """The one that an environment names; a watchdog that was meant for another process is none of ours."""
        usec, pid = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", "")
        watched = usec.isascii() and usec.isdecimal() and pid in ("", str(os.getpid()))
        return cls(env.get("NOTIFY_SOCKET", ""), int(usec) / 1e6 if watched else 0)

    async def keep_told(self, is_ready: Callable[[], bool], standing: Callable[[], str]) -> None:
        """Say READY once it is, STATUS when it changes and WATCHDOG twice in its time; STOPPING at the end.

        Returns at once where nobody listens.
        """
        was_ready, said, fed_at = False, "", 0.0
        tick_s = min(TICK_S, self._watchdog_s / 4) if self._watchdog_s else TICK_S
        try:
            while self._address:
                words = []
                if self._watchdog_s and time.monotonic() - fed_at >= self._watchdog_s / 2 - tick_s:
                    fed_at = time.monotonic()
                    words.append("WATCHDOG=1")
                if not was_ready and is_ready():
                    was_ready = True
                    words.append("READY=1")
                if (now := _one_line(standing())) != said:
                    said = now
                    words.append(f"STATUS={now}")
                self.tell(*words)
                await asyncio.sleep(tick_s)
        finally:
            self.tell("STOPPING=1")

    def tell(self, *words: str) -> bool:
        """Send one datagram; whether it went. A manager that does not take it, or is full, is not waited for."""
        if not self._address or not words:
            return False
        name = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.setblocking(False)
                line.connect(name)
                line.send("\n".join(words).encode())
        except (OSError, ValueError) as error:
            log.warning("service manager not told", why=str(error)[:200])
            return False
        return True


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:MAX_STATUS_CHARACTERS])
