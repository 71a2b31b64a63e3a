"""The signer's key files: private, of the right kind, and never shown."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from orchestrator.errors import NotAllowedError, NotFoundError, OperationError
from orchestrator.signer.keys import load_signer, load_x25519

Private = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey


def write(path: Path, key: Private, protection: KeySerializationEncryption | None = None, mode: int = 0o600) -> Path:
    """A key file."""
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection or NoEncryption()))
    path.chmod(mode)
    return path


@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())])
def test_a_signing_key_signs(tmp_path: Path, key: Private) -> None:
    """Its signature holds under its public key."""
    signer = load_signer(write(tmp_path / "director.key", key))
    signer.public_key.verify_signature(signer.sign(b"text"), b"text")


def test_the_package_key_is_the_one_that_was_written(tmp_path: Path) -> None:
    """X25519."""
    key = x25519.X25519PrivateKey.generate()
    assert load_x25519(write(tmp_path / "package.key", key)).private_bytes_raw() == key.private_bytes_raw()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
@pytest.mark.parametrize("load", [load_signer, load_x25519])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, load: object, mode: int) -> None:
    """It may have been read: the mode is named, and what it should be."""
    path = write(tmp_path / "a.key", ed25519.Ed25519PrivateKey.generate(), mode=mode)
    with pytest.raises(NotAllowedError, match=rf"mode {mode:o}; make it 600"):
        load(path)  # type: ignore[operator]


@pytest.mark.parametrize("load", [load_signer, load_x25519])
def test_a_missing_key_is_named(tmp_path: Path, load: object) -> None:
    """With what to do."""
    with pytest.raises(NotFoundError, match=r"a\.key: the key is missing; restore it"):
        load(tmp_path / "a.key")  # type: ignore[operator]
    with pytest.raises(OperationError, match="irectory"):
        tmp_path.chmod(0o700)
        load(tmp_path)  # type: ignore[operator]


@pytest.mark.parametrize("load", [load_signer, load_x25519])
@pytest.mark.parametrize("what", ["noise", "public", "encrypted", "empty", "other kind"])
def test_what_is_no_such_key_is_one_sentence(tmp_path: Path, load: object, what: str) -> None:
    """It does not repeat what stands in the file."""
    path, signing, package = (
        tmp_path / "a.key",
        ed25519.Ed25519PrivateKey.generate(),
        x25519.X25519PrivateKey.generate(),
    )
    other = signing if load is load_x25519 else package
    match what:
        case "encrypted":
            write(path, signing, BestAvailableEncryption(b"password"))
        case "other kind":
            write(path, other)
        case "public":
            path.write_bytes(signing.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        case _:
            path.write_bytes(b"-----BEGIN secret-----" if what == "noise" else b"")
    path.chmod(0o600)
    with pytest.raises(OperationError, match=r"a\.key: expected an") as refusal:
        load(path)  # type: ignore[operator]
    assert "secret" not in str(refusal.value)
