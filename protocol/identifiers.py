"""Names that cross a boundary, each checked once and then carried by its own type.

One pattern guards enrolment, certificates, topics, ingress and the database. A ``/``, ``+`` or ``#`` in an
id would let one device write into the topics of another, whatever the broker's ACL says.
"""

import re
from dataclasses import dataclass
from typing import Annotated, NewType

from pydantic import AfterValidator, StringConstraints

DeviceId = NewType("DeviceId", str)
FleetId = NewType("FleetId", str)
RolloutId = NewType("RolloutId", str)

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z"
VERSION_PATTERN = r"^[0-9A-Za-z][0-9A-Za-z.+_~-]{0,63}\Z"
DIGEST_PATTERN = r"^[0-9a-f]{64}\Z"

CLAIM_PATTERN = r"^claim\.[A-Za-z0-9][A-Za-z0-9_-]{0,56}\Z"
"""The dot keeps claims apart from devices: no claim can take over a device's session or topics."""
SERIAL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\Z"

_ID = re.compile(ID_PATTERN)
_VERSION = re.compile(VERSION_PATTERN)
_DIGEST = re.compile(DIGEST_PATTERN)
_CLAIM = re.compile(CLAIM_PATTERN)
_SERIAL = re.compile(SERIAL_PATTERN)


def check_id(text: str, what: str = "id") -> str:
    """Return ``text`` if it may stand in a topic, a certificate and a file name.

    Raises:
        ValueError: It does not match ``ID_PATTERN``.
    """
    if not _ID.match(text):
        raise ValueError(
            f"{what} {text[:80]!r}: expected 1 to 64 letters, digits, '_' or '-', starting with a letter or digit"
        )
    return text


def check_version(text: str) -> str:
    """Return ``text`` if it is a version: up to 64 of ``0-9A-Za-z.+_~-``.

    Raises:
        ValueError: It is not.
    """
    if not _VERSION.match(text) or ".." in text:
        raise ValueError(f"version {text[:80]!r}: expected something like 1.2.0, at most 64 characters")
    return text


def check_digest(text: str) -> str:
    """Return ``text`` if it is 64 lower-case hex digits.

    Raises:
        ValueError: It is not.
    """
    if not _DIGEST.match(text):
        raise ValueError(f"digest {text[:80]!r}: expected 64 lower-case hex digits")
    return text


def check_claim(text: str) -> str:
    """Return ``text`` if it is the CN of a claim certificate: ``claim.`` and an id of at most 57 characters.

    Raises:
        ValueError: It is not.
    """
    if not _CLAIM.match(text):
        raise ValueError(f"claim {text[:80]!r}: expected 'claim.' and up to 57 letters, digits, '_' or '-'")
    return text


def check_serial(text: str) -> str:
    """Return ``text`` if it is a serial number as devices are made with: up to 64 of ``0-9A-Za-z._:-``.

    Raises:
        ValueError: It is not.
    """
    if not _SERIAL.match(text):
        raise ValueError(f"serial {text[:80]!r}: expected 1 to 64 letters, digits, '.', '_', ':' or '-'")
    return text


def device_id(text: str) -> DeviceId:
    """Check and type a device id; raises ValueError."""
    return DeviceId(check_id(text, "device id"))


def fleet_id(text: str) -> FleetId:
    """Check and type a fleet id; raises ValueError."""
    return FleetId(check_id(text, "fleet id"))


def rollout_id(text: str) -> RolloutId:
    """Check and type a rollout id; raises ValueError."""
    return RolloutId(check_id(text, "rollout id"))


# The same checks as pydantic field types, for messages and requests.
IdText = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(check_id)]
VersionText = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(check_version)]
ClaimText = Annotated[str, StringConstraints(min_length=7, max_length=64), AfterValidator(check_claim)]
SerialText = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(check_serial)]
DigestText = Annotated[str, StringConstraints(min_length=64, max_length=64), AfterValidator(check_digest)]


@dataclass(frozen=True, slots=True)
class ReleaseName:
    """A release by name: ``product/version``."""

    product: str
    version: str

    def __str__(self) -> str:
        return f"{self.product}/{self.version}"

    @property
    def target_path(self) -> str:
        """The TUF target path of the release's sealed manifest."""
        return f"{self.product}/{self.version}/manifest"

    @classmethod
    def parse(cls, text: str) -> "ReleaseName":
        """Read ``product/version``; raises ValueError."""
        product, slash, version = text.partition("/")
        if not slash:
            raise ValueError(f"release {text[:80]!r}: expected product/version, such as gateway/1.1.0")
        return cls(check_id(product, "product"), check_version(version))
