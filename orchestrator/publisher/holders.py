"""Who holds which key, and where it is.

``keys/holders.json`` of the publisher's folder is public; ``trust publish`` adds to it. Holders hand over their public
keys as PEM with comment lines before it:

    # holder: Ada Lovelace
    # uri: hsm:2?label=ada
    -----BEGIN PUBLIC KEY-----

Names are what the person who proposed wrote. What counts is the key id, which is a digest of the key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from securesystemslib.signer import Key, SSlibKey

from orchestrator.errors import ConflictError, NotFoundError, OperationError, UsageError

MAX_PUBLIC_BYTES = 16_384
MAX_HOLDERS_BYTES = 262_144
SHORT = 12
"""Hex digits of a key id that people compare."""

_PLAIN = r"^[^\x00-\x1f\x7f]*$"
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80, pattern=_PLAIN)]


class Holder(BaseModel):
    """One key's person and place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    holder: Name
    uri: Annotated[str, StringConstraints(max_length=1024, pattern=_PLAIN)] = ""


class Holders(BaseModel):
    """``holders.json``: by key id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: dict[str, Holder] = {}

    def name(self, keyid: str) -> str:
        """The holder's name, or a dash."""
        found = self.keys.get(keyid)
        return found.holder if found else "-"

    def title(self, keyid: str) -> str:
        """Name and fingerprint."""
        return f"{self.name(keyid)} ({keyid[:SHORT]})"

    def with_keys(self, news: Mapping[str, Holder]) -> "Holders":
        """These, and those of ``news`` where a key has no entry yet."""
        return Holders(keys={**news, **self.keys})


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What a holder hands over."""

    key: SSlibKey
    holder: Holder


def read_public_key(file: Path) -> PublicKey:
    """Read a public key file; without a ``# holder:`` line the file's name is the holder's.

    Raises:
        NotFoundError: It is not there.
        UsageError: It is not a public key that can verify signatures.
    """
    raw = _read(file, MAX_PUBLIC_BYTES, "public key")
    notes: dict[str, str] = {}
    for line in raw.decode("utf-8", "replace").splitlines():
        if line.startswith("#"):
            name, _, value = line[1:].partition(":")
            notes[name.strip()] = value.strip()
    begin = raw.find(b"-----BEGIN PUBLIC KEY-----")
    try:
        key = SSlibKey.from_crypto(load_pem_public_key(raw[begin:] if begin >= 0 else b""))
        holder = Holder(holder=notes.get("holder") or file.stem, uri=notes.get("uri", ""))
    except ValidationError as error:
        raise UsageError(f"{file}: expected a holder's name of 1 to 80 characters in its '# holder:' line") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{file}: expected a public key for signatures in PEM; make it with 'flagship trust key'"
        ) from error
    return PublicKey(key, holder)


def write_public_key(file: Path, key: Key, holder: Holder) -> None:
    """Write a public key file.

    Raises:
        ConflictError: There is one.
        OperationError: It cannot be written.
    """
    if not isinstance(key, SSlibKey):
        raise OperationError(f"{file}: a key of type {key.keytype} has no PEM form")
    pem = key._crypto_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # noqa: SLF001 - no public way
    notes = f"# holder: {holder.holder}\n" + (f"# uri: {holder.uri}\n" if holder.uri else "")
    try:
        with file.open("xb") as out:
            out.write(notes.encode() + pem)
    except FileExistsError as error:
        raise ConflictError(f"{file}: is there already; name another or remove it") from error
    except OSError as error:
        raise OperationError(f"{file}: cannot be written: {error.strerror or error}") from error


def read_holders(file: Path) -> Holders:
    """Read ``holders.json``; none is an empty one.

    Raises:
        OperationError: It is damaged.
    """
    if not file.exists():
        return Holders()
    try:
        return Holders.model_validate_json(_read(file, MAX_HOLDERS_BYTES, "list of holders"))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise OperationError(
            f"{file}: {place}: {first['msg']}; mend it, or remove it: names are lost, keys not"
        ) from error


def _read(file: Path, limit: int, what: str) -> bytes:
    try:
        with file.open("rb") as source:
            raw = source.read(limit + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"{file}: no such {what}") from error
    except OSError as error:
        raise OperationError(f"{file}: cannot be read: {error.strerror or error}") from error
    if len(raw) > limit:
        raise UsageError(f"{file}: expected a {what} of at most {limit} B, found a larger file")
    return raw
