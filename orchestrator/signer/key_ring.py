"""Several keys of one online role, of which the offline keys list one or two (design, section 4).

director.key, director-2.key, director-3.key ...: the listed one with the highest number signs. So a new key is put
beside the old one, is listed by a ceremony, and takes over by itself.
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata
from tuf.api.serialization import DeserializationError

from orchestrator.errors import ConflictError
from orchestrator.signer.keys import load_signer, load_x25519

MAX_KEYS = 100


class KeyRing:
    """The private keys in the signer's folder. Blocking."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def newest(self, role: str) -> CryptoSigner:
        """The key with the highest number.

        Raises:
            OperationError: There is none, or it cannot be read.
        """
        files = self._files(role)
        return load_signer(files[-1] if files else self._directory / f"{role}.key")

    def in_use(self, role: str, trust: Path) -> CryptoSigner:
        """The key to begin with: the newest that the published metadata lists, or the newest where none is listed.

        Raises:
            OperationError: There is none, or it cannot be read.
        """
        try:
            return self.choose(role, _listed(trust, role))
        except ConflictError:
            return self.newest(role)

    def choose(self, role: str, listed: Collection[str]) -> CryptoSigner:
        """The newest key that is listed.

        Raises:
            ConflictError: None is.
            OperationError: A key cannot be read.
        """
        files = self._files(role)
        for path in reversed(files):
            signer = load_signer(path)
            if signer.public_key.keyid in listed:
                return signer
        number = len(files) + 1
        raise ConflictError(
            f"{self._directory}: none of its {role} keys is listed in the trust metadata; list one with "
            f"'flagship trust propose --add', or make {role}-{number}.key with 'flagship trust key --plain' first"
        )

    def _files(self, role: str) -> list[Path]:
        """Key files of a role, the oldest first."""
        name = re.compile(rf"{re.escape(role)}(?:-([1-9][0-9]{{0,3}}))?\.key\Z")
        found = [(int(match[1] or 1), path) for path in self._directory.iterdir() if (match := name.match(path.name))]
        return [path for _, path in sorted(found)[-MAX_KEYS:]]


class Keys(NamedTuple):
    """The private keys of one fleet; ``ring`` has every director and timestamp key of the folder."""

    director: CryptoSigner
    timestamp: CryptoSigner
    package: X25519PrivateKey
    ring: KeyRing


def open_keys(folder: Path, trust: Path) -> Keys:
    """Load a signer's keys; those that the published metadata lists are in use. Blocking.

    Raises:
        OperationError: A key is missing, unreadable or readable by others.
    """
    ring = KeyRing(folder)
    return Keys(
        ring.in_use("director", trust), ring.in_use("timestamp", trust), load_x25519(folder / "package.key"), ring
    )


def _listed(trust: Path, role: str) -> set[str]:
    """Key ids of an online role in the newest root and targets; none where they are missing or damaged."""
    found: set[str] = set()
    for name in ("root", "targets"):
        files = [path for path in trust.glob(f"*.{name}.json") if path.name.partition(".")[0].isdecimal()]
        newest = max(files, key=lambda path: int(path.name.partition(".")[0]), default=None)
        try:
            signed: Any = Metadata[Any].from_bytes(newest.read_bytes()).signed if newest else None
        except (OSError, DeserializationError):
            continue
        delegations = getattr(signed, "delegations", None)
        roles = getattr(signed, "roles", None) or (delegations.roles if delegations else None) or {}
        found |= {keyid for one, keys in roles.items() if one.partition("-")[0] == role for keyid in keys.keyids}
    return found
