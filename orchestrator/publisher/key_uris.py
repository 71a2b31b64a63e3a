"""Private keys by URI: a PEM file, plain or encrypted; a PKCS#11 token; whatever else securesystemslib knows.

    PATH, file:PATH, file2:PATH      PKCS#8 PEM, 0600; when it is encrypted the password is asked for
    hsm:KEYID?label=TOKEN            PKCS#11; PYKCS11LIB names the module, the PIN is asked for
    gcpkms: azurekms: awskms: ...    as securesystemslib has them; credentials are the service's own affair

A secret comes from an ``Ask``, never from the URI: a URI stands in process lists and shell histories.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, HSMSigner, Key, Signature, Signer, SSlibKey

from orchestrator.errors import NotAllowedError, NotFoundError, OperationError, UsageError

Ask = Callable[[str], str]
"""What is asked for ("password of keys/ada.key") -> the secret."""
MAX_KEY_BYTES = 65_536


class CannotAskError(NotAllowedError):
    """A secret is needed and nobody can be asked for it."""


_FILES = ("file", "file2")


def open_signer(uri: str, ask: Ask, expected: Mapping[str, Key], keyid: str = "") -> Signer:
    """Open a private key.

    Args:
        expected: Keys that are of use, by key id; a service's key must be among them.
        keyid: Beginning of the key id; needed where a service cannot be asked for its public key.

    Raises:
        UsageError: The URI is not one.
        NotFoundError: There is no key at its place.
        NotAllowedError: Wrong password or PIN, or others may read the file.
        OperationError: It cannot be read, or a library is missing.
    """
    scheme = uri.partition(":")[0] if ":" in uri else ""
    if not scheme or scheme in _FILES or Path(uri).exists():
        return _open_file(Path(uri.removeprefix(f"{scheme}:") if scheme in _FILES else uri), ask, expected)
    if scheme not in SIGNER_FOR_URI_SCHEME:
        known = ", ".join(sorted({*_FILES, *SIGNER_FOR_URI_SCHEME}))
        raise UsageError(f"key {uri[:80]}: expected a file or one of {known}")
    with _service(uri):
        if scheme == HSMSigner.SCHEME:
            return _open_token(uri, ask)
        chosen = [key for name, key in expected.items() if name.startswith(keyid)]
        if len(chosen) != 1:
            raise UsageError(f"key {uri[:80]}: {len(chosen)} keys come into question; name its key id with --keyid")
        return Signer.from_priv_key_uri(uri, chosen[0], ask)


def read_private_file(path: Path) -> bytes:
    """The bytes of a file that is its owner's alone.

    Raises:
        NotFoundError: It is not there.
        NotAllowedError: Others may read it.
        OperationError: It cannot be read.
    """
    try:
        found = path.stat()
        if found.st_mode & 0o077:
            raise NotAllowedError(f"{path}: a private file with mode {found.st_mode & 0o777:o}; make it 600")
        with path.open("rb") as source:
            return source.read(MAX_KEY_BYTES)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such key file; name the file or URI of your key") from error
    except OSError as error:
        raise OperationError(f"{path}: cannot be read: {error.strerror or error}") from error


def is_encrypted(pem: bytes) -> bool:
    """Whether a private key file needs a password (RFC 7468, section 11)."""
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in pem


class LazySigner(Signer):
    """A key that is opened when it first signs: nobody is asked for a password that is not needed."""

    def __init__(self, uri: str, public_key: Key, ask: Ask) -> None:
        self._uri = uri
        self._public_key = public_key
        self._ask = ask
        self._opened: Signer | None = None

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri: str, public_key: Key, secrets_handler: Ask | None = None) -> "LazySigner":
        """As securesystemslib wants it."""
        if secrets_handler is None:
            raise ValueError("a way to ask for secrets is needed")
        return cls(priv_key_uri, public_key, secrets_handler)

    @property
    def public_key(self) -> Key:
        """Known without the private half."""
        return self._public_key

    def sign(self, payload: bytes) -> Signature:
        """Open the key, once, and sign.

        Raises:
            OperationError: It cannot be opened, or is another one.
        """
        if self._opened is None:
            opened = open_signer(self._uri, self._ask, {self._public_key.keyid: self._public_key})
            if opened.public_key.keyid != self._public_key.keyid:
                raise OperationError(
                    f"key {self._uri}: expected {self._public_key.keyid[:12]}, found {opened.public_key.keyid[:12]}; "
                    "correct keys/holders.json"
                )
            self._opened = opened
        with _service(self._uri):
            return self._opened.sign(payload)


def sign_with(signer: Signer, payload: bytes, where: str) -> Signature:
    """Sign, with a token's or service's failure as one sentence.

    Raises:
        NotAllowedError: Wrong PIN.
        OperationError: It does not sign.
    """
    with _service(where):
        return signer.sign(payload)


def _open_file(path: Path, ask: Ask, expected: Mapping[str, Key]) -> CryptoSigner:
    raw = read_private_file(path)
    try:
        try:
            private = load_pem_private_key(raw, None)
        except TypeError:  # how cryptography says that it is encrypted
            password = ask(f"password of {path}")
            try:
                private = load_pem_private_key(raw, password.encode())
            except ValueError as error:
                raise NotAllowedError(f"{path}: wrong password, or a damaged file; nothing was signed") from error
        for key in expected.values():
            if isinstance(key, SSlibKey) and _is_half_of(key, private):
                return CryptoSigner(private, key)
        return CryptoSigner(private)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise OperationError(f"{path}: expected a private key for signing in PEM (PKCS#8); restore it") from error


def _is_half_of(key: SSlibKey, private: Any) -> bool:  # noqa: ANN401 - any private key of cryptography
    try:
        return bool(CryptoSigner(private, key))
    except Exception:  # noqa: BLE001 - another kind of key has many ways to say so
        return False


def _open_token(uri: str, ask: Ask) -> HSMSigner:
    parts = urlsplit(uri)
    try:
        number = int(parts.path) if parts.path else None
    except ValueError:
        raise UsageError(f"key {uri[:80]}: expected hsm:KEYID?label=TOKEN with a number as KEYID") from None
    label = dict(parse_qsl(parts.query)).get("label")
    named, public_key = HSMSigner.import_(number, label, lambda _: ask(f"PIN of token {label or 'hsm'}"))
    found = urlsplit(named)
    token = dict(parse_qsl(found.query)).get("label")
    return HSMSigner(int(found.path), public_key, lambda _: ask(f"PIN of token {token or 'hsm'}"), token)


class _service:  # noqa: N801 - reads as a word in a with statement
    """Says in one sentence what a token or key service did not do."""

    def __init__(self, uri: str) -> None:
        self._uri = uri[:80]

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None or isinstance(error, OperationError) or not isinstance(error, Exception):
            return
        if isinstance(error, UnsupportedLibraryError | ImportError):
            raise OperationError(
                f"key {self._uri}: {error}; install it, for tokens with pip install 'flagship[hsm]'"
            ) from error
        name = type(error).__name__
        if "Pin" in name or "Authentication" in name:
            raise NotAllowedError(f"key {self._uri}: wrong PIN or no access ({name}); nothing was signed") from error
        raise OperationError(f"key {self._uri}: cannot be used: {str(error)[:200] or name}") from error
