"""A new identity beside the present one, until it has proved itself (design, section 4). All functions block.

    identities/N+1 made: keys, former content keys, request  ->  certificate came: whole, on trial
        ->  a broker took it: ``identity`` points there, the old folder goes

The present identity stays whole and in use up to that switch, which is one rename. What a power cut leaves half done
has no request or no ``fleet.json`` and is either made again or still waiting.
"""

import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from device_client.config import DeviceHome
from device_client.durable import explained, make_directory, read_capped, switch_link, sync_directory, write_durably
from device_client.identity import Enrolment, make_keys
from device_client.identity_files import MAX_FORMER, MAX_KEY_BYTES, IdentityFiles

MAX_REQUEST_BYTES = 16_384


class NewIdentity:
    """A folder that is not the present identity yet."""

    def __init__(self, home: DeviceHome, directory: Path) -> None:
        self.files = IdentityFiles(home, directory)

    @property
    def is_whole(self) -> bool:
        """Whether its certificate came and everything else is there."""
        return self.files.enrolment.is_file()

    @property
    def request(self) -> bytes:
        """What asks for its certificate, signed."""
        return read_capped(self.files.request, MAX_REQUEST_BYTES)


def find(home: DeviceHome) -> NewIdentity | None:
    """The new identity that waits for its certificate or is on trial."""
    present = _present(home)
    for number in sorted(_numbers(home), reverse=True):
        if number > present:
            found = NewIdentity(home, home.identities / str(number))
            if found.files.request.is_file():
                return found
    return None


def prepare(home: DeviceHome, sign: Callable[[IdentityFiles], bytes]) -> NewIdentity:
    """Make new keys and the request for their certificate; the request is written last.

    Args:
        sign: Makes the request from the folder with the new keys.

    Raises:
        StorageError: The disk is full; the present identity is untouched.
    """
    present = IdentityFiles(home)
    clear(home)
    directory = home.identities / str(_present(home) + 1)
    make_directory(directory, 0o700)
    files = IdentityFiles(home, directory)
    make_keys(home, directory)
    former = [present.content_key, *present.former_content_keys][:MAX_FORMER]
    for number, path in enumerate(former, 1):
        write_durably(directory / f"content.key.{number}", read_capped(path, MAX_KEY_BYTES))
    for old, new in ((present.ca, files.ca), (present.root, files.root)):
        write_durably(new, read_capped(old, 4 * MAX_KEY_BYTES), 0o644)
    write_durably(files.request, sign(files))
    return NewIdentity(home, directory)


def complete(new: NewIdentity, certificate: str, present: Enrolment, now: datetime) -> None:
    """Its certificate came: from here on it is tried."""
    write_durably(new.files.certificate, certificate.encode(), 0o644)
    enrolment = present.model_copy(update={"since": now})
    write_durably(new.files.enrolment, enrolment.model_dump_json().encode(), 0o644)


def adopt(home: DeviceHome, new: NewIdentity) -> None:
    """A broker took it: it is the present identity from now on, and the old one is removed."""
    switch_link(home.identity, f"{home.identities.name}/{new.files.directory.name}")
    clear(home)


def clear(home: DeviceHome) -> None:
    """Remove every folder but that of the present identity."""
    present = _present(home)
    for number in _numbers(home) - {present}:
        with explained(home.identities, "cleared"):
            shutil.rmtree(home.identities / str(number))
            sync_directory(home.identities)


def forget_former_keys(home: DeviceHome) -> None:
    """Nothing is open any more that was wrapped for a former content key."""
    files = IdentityFiles(home)
    for path in files.former_content_keys:
        with explained(path, "removed"):
            path.unlink()
            sync_directory(files.directory)


def _present(home: DeviceHome) -> int:
    name = home.identity.resolve().name
    return int(name) if name.isdecimal() else 0


def _numbers(home: DeviceHome) -> set[int]:
    return {int(path.name) for path in home.identities.iterdir() if path.name.isdecimal()}
