"""A medium (a USB stick, a folder) as it is carried to a device: its small files, read with a bound on everything.

    trust/{file name}   announce/{rollout}.json   offer/{device}/{rollout}.json   chunks/{cid}

Whoever had the medium in hand may have put anything on it. Below its folder no link is followed, nothing but regular
files is opened, and a file's size is looked at before its content. What the files say is judged by the verifier. Chunks
are read by their source. Blocking: call in a thread.
"""

import itertools
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from device_client.errors import NotFoundError, StorageError
from protocol.identifiers import check_id
from protocol.topics import RULES, Kind

MAX_TRUST_FILES = 512
MAX_TRUST_FILE_BYTES = 262_144
MAX_TRUST_BYTES = 8 * 2**20
"""Of all trust files: the longest history of roots that is walked, and some more."""
MAX_ROLLOUTS = 16
_TRUST = re.compile(r"^(timestamp|[1-9][0-9]{0,8}\.[A-Za-z0-9_-]{1,64})\.json\Z")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Not blocking: to open a FIFO would wait for someone to write into it."""


@dataclass(frozen=True, slots=True)
class Medium:
    """What a medium holds for one device; nothing of it is believed yet.

    Attributes:
        trust: TUF metadata by file name.
        announcements, offers: Signed envelopes by rollout.
    """

    trust: dict[str, bytes]
    announcements: dict[str, bytes]
    offers: dict[str, bytes]


def read_medium(path: Path, device: str) -> Medium:
    """Read what is meant for ``device``.

    Raises:
        NotFoundError: There is no such folder, or it holds no offer for this device.
        StorageError: Something on it is no regular file, too large, too many, or unreadable.
    """
    with _folder(path, None) as top:
        offers = _read_offers(path, top, device)
        if not offers:
            raise NotFoundError(f"{path}: holds no offer for device {device}; make one with 'flagship rollout offline'")
        with _folder(path / "trust", top) as folder:
            trust = _read_trust(path / "trust", folder)
        with _folder(path / "announce", top) as folder:
            limit = RULES[Kind.ANNOUNCE].max_bytes
            announcements = {rollout: _read(path / "announce" / f"{rollout}.json", folder, limit) for rollout in offers}
    return Medium(trust, announcements, offers)


def _read_trust(path: Path, folder: int) -> dict[str, bytes]:
    trust: dict[str, bytes] = {}
    left = MAX_TRUST_BYTES
    for name in _names(path, folder, MAX_TRUST_FILES):
        if _TRUST.match(name):
            trust[name] = _read(path / name, folder, MAX_TRUST_FILE_BYTES)
            left -= len(trust[name])
        if left < 0:
            raise StorageError(f"{path}: expected at most {MAX_TRUST_BYTES} B, found more; make the medium anew")
    return trust


def _read_offers(path: Path, top: int, device: str) -> dict[str, bytes]:
    place = path / "offer" / device
    try:
        with _folder(path / "offer", top) as offers, _folder(place, offers) as folder:
            stems = (Path(name).stem for name in _names(place, folder, MAX_ROLLOUTS) if name.endswith(".json"))
            rollouts = [stem for stem in stems if _is_id(stem)]
            return {r: _read(place / f"{r}.json", folder, RULES[Kind.OFFER].max_bytes) for r in rollouts}
    except NotFoundError:
        return {}


@contextmanager
def _folder(path: Path, parent: int | None) -> Iterator[int]:
    """A folder opened below its parent; the topmost one may be reached over a link, a person named it."""
    flags = _FOLDER if parent is not None else _FOLDER & ~os.O_NOFOLLOW
    with _explained(path):
        descriptor = os.open(path.name if parent is not None else path, flags, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _names(path: Path, folder: int, most: int) -> list[str]:
    with _explained(path), os.scandir(folder) as entries:
        names = [entry.name for entry in itertools.islice(entries, most + 1)]
    if len(names) > most:
        raise StorageError(f"{path}: expected at most {most} files, found more; make the medium anew")
    return sorted(names)


def _read(path: Path, folder: int, max_bytes: int) -> bytes:
    with _explained(path):
        descriptor = os.open(path.name, _FILE, dir_fd=folder)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise StorageError(f"{path}: expected a regular file; make the medium anew")
        if found.st_size > max_bytes:
            raise StorageError(f"{path}: expected at most {max_bytes} B, found {found.st_size}; make the medium anew")
        with _explained(path):
            return os.read(descriptor, max_bytes)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: not there; name the folder of a medium") from error
    except OSError as error:
        why = error.strerror or str(error)
        raise StorageError(f"{path}: cannot be read as part of a medium: {why}; make the medium anew") from error


def _is_id(text: str) -> bool:
    try:
        check_id(text, "rollout id")
    except ValueError:
        return False
    return True
