"""In which time zone this device lives: as its owner says, else as the machine is set."""

from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

LOCALTIME = Path("/etc/localtime")
_DATABASE = "zoneinfo/"


def time_zone(configured: str | None, localtime: Path = LOCALTIME) -> str:
    """The zone's IANA name.

    As localtime(5) has it: ``/etc/localtime`` is a link into the time zone database, what follows there is the name,
    and without it the zone is UTC. A copied file, or ``/etc/timezone``, which may contradict it, is not asked.

    Args:
        configured: ``[device] timezone``, if there is one.
        localtime: The machine's link.
    """
    if configured is not None:
        return configured
    try:
        name = str(localtime.readlink()).rpartition(_DATABASE)[2]
        ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return "UTC"
    return name
