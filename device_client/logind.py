"""What systemd-logind knows: who does not want the machine to go down, and who sits before it. Blocking.

https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.login1.html
"""

from dataclasses import dataclass

from device_client.errors import UnreachableError
from device_client.system_bus import SystemBus, Talk

MAX_SESSIONS = 64
_SERVICE, _PATH = "org.freedesktop.login1", "/org/freedesktop/login1"
_MANAGER, _SESSION = "org.freedesktop.login1.Manager", "org.freedesktop.login1.Session"
_WHAT = "shutdown:sleep"


@dataclass(frozen=True, slots=True)
class Inhibitor:
    """A program that inhibits something.

    Attributes:
        what: Of ``shutdown``, ``sleep``, ``idle`` and others.
        blocks: Whether it forbids; the others only want a delay.
        pid: Of the process that took it.
    """

    what: frozenset[str]
    who: str
    why: str
    blocks: bool
    pid: int


@dataclass(frozen=True, slots=True)
class Session:
    """A session of a person on a seat: a screen and keys of this machine.

    Attributes:
        is_active: It is the one in the foreground of its seat.
        is_idle: logind believes that nobody has touched anything for a while.
    """

    user: str
    seat: str
    is_active: bool
    is_idle: bool


@dataclass(frozen=True, slots=True)
class Presence:
    """All of it at one moment."""

    inhibitors: tuple[Inhibitor, ...]
    sessions: tuple[Session, ...]


class Logind:
    """logind on one bus."""

    def __init__(self, bus: SystemBus) -> None:
        self._bus = bus

    def presence(self) -> Presence:
        """Who inhibits, and which people's sessions have a seat.

        Raises:
            UnreachableError: There is no logind, or it says something else than it should.
        """
        with self._bus.talk() as talk:
            (inhibitors,) = talk.call(_SERVICE, _PATH, _MANAGER, "ListInhibitors", "a(ssssuu)")
            (sessions,) = talk.call(_SERVICE, _PATH, _MANAGER, "ListSessions", "a(susso)")
            found = (_session(talk, *session) for session in sessions[:MAX_SESSIONS] if session[3])
            return Presence(
                tuple(
                    Inhibitor(frozenset(what.split(":")), who, why, mode == "block", pid)
                    for what, who, why, mode, _, pid in inhibitors
                ),
                tuple(session for session in found if session),
            )

    def inhibit(self, why: str, *, block: bool) -> int:
        """Keep the machine from going down or to sleep until the descriptor that is returned is closed.

        Raises:
            UnreachableError: There is no logind, or this user may not.
        """
        mode = "block" if block else "delay"
        with self._bus.talk(descriptors=True) as talk:
            (lock,) = talk.call(_SERVICE, _PATH, _MANAGER, "Inhibit", "h", "ssss", _WHAT, "flagship-device", why, mode)
            return int(lock.to_raw_fd())


def _session(talk: Talk, _name: str, _uid: int, user: str, seat: str, path: str) -> Session | None:
    """A session that a person has; None for a greeter's, and for one that ended meanwhile."""
    try:
        if talk.get(_SERVICE, path, _SESSION, "Class", str) != "user":
            return None
        active, idle = (talk.get(_SERVICE, path, _SESSION, name, bool) for name in ("Active", "IdleHint"))
    except UnreachableError:
        return None
    return Session(user, seat, active, idle)
