"""The publisher's folder: release keys, the secret of chunk keys, and the working copy of the TUF metadata.

keys/*.key           private keys of the offline roles, PKCS#8 PEM, 0600; plain, or encrypted with a password
keys/holders.json    who holds which key, and the URIs of keys that are not files here; public
content.secret       DK, 32 bytes, 0600
package.pub          the signer's X25519 public key, PEM: packages are sealed to it
metadata/            N.root.json, N.targets.json, N.releases-PRODUCT.json, N.snapshot.json
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from securesystemslib.signer import CryptoSigner, Signer

from orchestrator.durable import replace_durably
from orchestrator.errors import ConflictError, NotAllowedError, NotFoundError, OperationError
from orchestrator.publisher.holders import Holder, Holders, read_holders
from orchestrator.publisher.key_uris import Ask, CannotAskError, LazySigner, is_encrypted
from orchestrator.publisher.trust_roles import named_keys

SECRET_BYTES = 32
MAX_FILE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class ReleaseKeys:
    """What a release is made with.

    Attributes:
        secret: DK; never leaves the publisher.
        package_key: Of the signer, which alone opens packages.
        metadata: The working copy, by file name.
    """

    secret: bytes
    package_key: X25519PublicKey
    signers: tuple[Signer, ...]
    metadata: Mapping[str, bytes]

    def __repr__(self) -> str:
        """Without the secret."""
        return f"ReleaseKeys(signers={len(self.signers)}, metadata={sorted(self.metadata)})"


class Workspace:
    """The folder, read whole and written file by file."""

    def __init__(self, directory: Path, ask: Ask | None = None) -> None:
        """``ask`` gives passwords and PINs; without it keys that need one cannot sign."""
        self.directory = directory
        self._ask = ask or _cannot_ask
        self.keys = directory / "keys"
        self.secret = directory / "content.secret"
        self.package_key = directory / "package.pub"
        self.metadata = directory / "metadata"
        self.holders = self.keys / "holders.json"

    def load(self) -> ReleaseKeys:
        """Read everything.

        Raises:
            NotFoundError: The folder or a file is missing.
            NotAllowedError: A private file is readable by others.
            OperationError: A file is not what it should be.
        """
        if not self.directory.is_dir():
            raise workspace_missing(self.directory)
        return ReleaseKeys(
            self._load_secret(),
            self._load_package_key(),
            self.load_signers(),
            self.load_metadata(),
        )

    def load_metadata(self) -> dict[str, bytes]:
        """The working copy of the metadata, by file name.

        Raises:
            NotFoundError: There is no such folder.
            OperationError: A file cannot be read.
        """
        if not self.directory.is_dir():
            raise workspace_missing(self.directory)
        return {path.name: _read(path) for path in sorted(self.metadata.glob("[0-9]*.json"))}

    def load_holders(self) -> Holders:
        """Who holds which key.

        Raises:
            OperationError: ``keys/holders.json`` is damaged.
        """
        return read_holders(self.holders)

    def load_signers(self) -> tuple[Signer, ...]:
        """Keys at hand: plain files first, then those that ask for a password or PIN when they sign.

        Raises:
            NotAllowedError: A private file is readable by others.
            OperationError: A file is not what it should be.
        """
        known, holders = named_keys(self.load_metadata()), self.load_holders()
        plain = {signer.public_key.keyid: signer for signer in self.load_plain_signers().values()}
        asking = [
            LazySigner(holder.uri, known[keyid], self._ask)
            for keyid, holder in holders.keys.items()
            if holder.uri and keyid in known and keyid not in plain
        ]
        return (*plain.values(), *asking)

    def load_plain_signers(self) -> dict[str, Signer]:
        """Keys of this folder that need no password, by the name of their file without its end.

        Raises:
            NotAllowedError: A private file is readable by others.
            OperationError: A file is not what it should be.
        """
        paths = [path for path in sorted(self.keys.glob("*.key")) if not is_encrypted(_read(path, private=True))]
        return {path.stem: _load_signer(path) for path in paths}

    def add_holders(self, news: Mapping[str, Holder]) -> None:
        """Remember who holds keys that were published.

        Raises:
            OperationError: It cannot be written.
        """
        found = self.load_holders().with_keys(news)
        temporary = self.holders.with_name(".holders.json.new")
        try:
            temporary.write_text(found.model_dump_json(indent=1) + "\n")
            temporary.replace(self.holders)
        except OSError as error:
            raise OperationError(f"{self.holders}: cannot be written: {error.strerror or error}") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One at a time: two would sign two metadata files of one version.

        Raises:
            NotFoundError: There is no such folder.
            ConflictError: Another process works in it.
        """
        try:
            descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError as error:
            raise workspace_missing(self.directory) from error
        except OSError as error:
            raise OperationError(f"release keys {self.directory}: cannot be used: {error.strerror or error}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConflictError(
                    f"release keys {self.directory}: another command works with them; wait for it to end"
                ) from error
            yield
        finally:
            os.close(descriptor)

    def store(self, files: Mapping[str, bytes]) -> None:
        """Add metadata files, roots first, the snapshot last: it names the others. Durable when this returns.

        Raises:
            OperationError: The disk does not take them.
        """
        for name in sorted(files, key=lambda name: (name.endswith(".snapshot.json"), not name.endswith(".root.json"))):
            place = self.metadata / name
            try:
                replace_durably(place, files[name])
            except OSError as error:
                raise OperationError(f"{place}: cannot be written: {error.strerror or error}") from error

    def _load_secret(self) -> bytes:
        secret = _read(self.secret, private=True)
        if len(secret) != SECRET_BYTES:
            raise OperationError(f"{self.secret}: expected {SECRET_BYTES} bytes, found {len(secret)}; restore it")
        return secret

    def _load_package_key(self) -> X25519PublicKey:
        try:
            key = load_pem_public_key(_read(self.package_key))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise OperationError(f"{self.package_key}: expected an X25519 public key in PEM; restore it") from error
        if not isinstance(key, X25519PublicKey):
            raise OperationError(f"{self.package_key}: expected an X25519 public key, found another kind; restore it")
        return key


def workspace_missing(directory: Path) -> NotFoundError:
    """The sentence for a folder that is not there."""
    return NotFoundError(
        f"release keys {directory}: no such folder; make keys with 'flagship init DIR' or name their folder with --keys"
    )


def _cannot_ask(what: str) -> str:
    raise CannotAskError(f"{what}: is needed, and nobody can be asked; name --password-file")


def _load_signer(path: Path) -> CryptoSigner:
    try:
        return CryptoSigner(load_pem_private_key(_read(path, private=True), None))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise OperationError(f"{path}: expected an unencrypted private key for signing in PEM; restore it") from error


def _read(path: Path, *, private: bool = False) -> bytes:
    try:
        found = path.stat()
        if private and found.st_mode & 0o077:
            raise NotAllowedError(f"{path}: a private file with mode {found.st_mode & 0o777:o}; make it 600")
        if found.st_size > MAX_FILE_BYTES:
            raise OperationError(f"{path}: expected at most {MAX_FILE_BYTES} B, found {found.st_size}; restore it")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path}: is missing; restore it from a backup, or make new keys with 'flagship init DIR'"
        ) from error
    except OSError as error:
        raise OperationError(f"{path}: cannot be read: {error.strerror or error}") from error
