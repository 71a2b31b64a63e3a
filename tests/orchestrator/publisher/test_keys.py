"""Private keys: made once, for their owner alone, and refused in one sentence when they are something else."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from orchestrator.errors import ConflictError, NotAllowedError, NotFoundError, OperationError
from orchestrator.publisher.keys import create_package_key, create_signing_key
from orchestrator.publisher.workspace import Workspace
from orchestrator.signer.keys import load_signer, load_x25519
from tests.orchestrator.publisher.workshop import Publisher


def test_a_key_is_private_and_comes_back(tmp_path: Path) -> None:
    """Mode 0600 whatever the umask; what is loaded signs as what was made."""
    path = tmp_path / "root-1.key"
    made = create_signing_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    signature = load_signer(path).sign(b"content")
    made.public_key.verify_signature(signature, b"content")


def test_a_package_key_is_private_and_comes_back(tmp_path: Path) -> None:
    """The same for the key that opens packages."""
    path = tmp_path / "package.key"
    made = create_package_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_x25519(path).public_key() == made.public_key()


@pytest.mark.parametrize("create", [create_signing_key, create_package_key])
def test_a_key_is_never_overwritten(tmp_path: Path, create: Callable[[Path], object]) -> None:
    """Not even through a link: the only copy of a root key may be behind it."""
    path, link = tmp_path / "a.key", tmp_path / "b.key"
    path.write_text("precious")
    link.symlink_to(path)
    for place in (path, link):
        with pytest.raises(ConflictError, match="exists already"):
            create(place)
    assert path.read_text() == "precious"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """One sentence that names the file."""
    with pytest.raises(OperationError, match=r"absent/a\.key: cannot be written: No such file"):
        create_signing_key(tmp_path / "absent" / "a.key")


def test_a_publishers_key_that_others_may_read(publisher: Publisher) -> None:
    """A release is not signed with a key that may have been copied."""
    path = publisher.workspace.keys / "snapshot-1.key"
    path.chmod(0o640)
    with pytest.raises(NotAllowedError, match=r"snapshot-1\.key: a private file with mode 640; make it 600"):
        publisher.workspace.load()


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"\xff\0"])
def test_a_publishers_key_that_is_damaged(publisher: Publisher, content: bytes) -> None:
    """Named, without any of its content."""
    path = publisher.workspace.keys / "snapshot-1.key"
    path.write_bytes(content)
    with pytest.raises(OperationError, match=r"snapshot-1\.key: expected an unencrypted private key.*restore it"):
        publisher.workspace.load()


def test_a_publishers_key_of_another_kind(publisher: Publisher) -> None:
    """A key that cannot sign is refused like a damaged one; one that asks for a password is not tried unasked."""
    path = publisher.workspace.keys / "snapshot-1.key"
    path.unlink()
    create_package_key(path)
    with pytest.raises(OperationError, match="expected an unencrypted private key for signing"):
        publisher.workspace.load()
    locked = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")
    )
    path.write_bytes(locked)
    assert len(publisher.workspace.load().signers) == 3


def test_a_publishers_folder_that_is_missing(tmp_path: Path) -> None:
    """Says how to make one, or to name it."""
    with pytest.raises(NotFoundError, match="'flagship init DIR' or name their folder with --keys"):
        Workspace(tmp_path / "absent").load()
