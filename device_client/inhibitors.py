"""How a program or a person says that the device is in use; ``gates/in_use.py`` reads it. Blocking."""

from datetime import datetime
from pathlib import Path

from device_client.durable import make_directory, sync_directory, write_durably
from device_client.errors import UsageError
from device_client.gates.in_use import Inhibitor
from protocol.identifiers import check_id

MAX_WHY_CHARACTERS = 200


def inhibit(directory: Path, who: str, why: str, until: datetime | None) -> None:
    """Keep installs away until ``release``, or ``until``.

    Raises:
        UsageError: ``who`` may not stand in a file name, or the reason is too long.
    """
    path = _path(directory, who)
    if len(why) > MAX_WHY_CHARACTERS:
        raise UsageError(f"--why: at most {MAX_WHY_CHARACTERS} characters, found {len(why)}")
    make_directory(directory)
    write_durably(path, Inhibitor(who=who, why=why, until=until).model_dump_json().encode(), 0o644)


def release(directory: Path, who: str) -> bool:
    """End what ``inhibit`` began; whether there was anything to end."""
    path = _path(directory, who)
    if not path.exists():
        return False
    path.unlink()
    sync_directory(directory)
    return True


def _path(directory: Path, who: str) -> Path:
    try:
        return directory / f"{check_id(who, 'who')}.json"
    except ValueError as error:
        raise UsageError(str(error)) from error
