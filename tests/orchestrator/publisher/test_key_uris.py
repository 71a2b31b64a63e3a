"""Private keys by URI: files, encrypted files, tokens, services."""

import os
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from securesystemslib.signer import CryptoSigner

from orchestrator.errors import ConflictError, NotAllowedError, NotFoundError, OperationError, UsageError
from orchestrator.publisher.holders import Holder, Holders, read_holders, read_public_key, write_public_key
from orchestrator.publisher.key_uris import LazySigner, open_signer
from orchestrator.publisher.keys import create_signing_key

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")


def never(what: str) -> str:
    """Nobody may be asked."""
    raise AssertionError(what)


@pytest.mark.parametrize("form", ["{}", "file:{}", "file2:{}"])
def test_a_plain_file(tmp_path: Path, form: str) -> None:
    """By path or URI; nobody is asked for anything."""
    made = create_signing_key(tmp_path / "ada.key")
    opened = open_signer(form.format(tmp_path / "ada.key"), never, {})
    opened.public_key.verify_signature(opened.sign(b"x"), b"x")
    assert opened.public_key == made.public_key


def test_an_encrypted_file(tmp_path: Path) -> None:
    """The password is asked for by the file's name; a wrong one is a refusal, not a damaged file's traceback."""
    made = create_signing_key(tmp_path / "ada.key", "correct horse")
    asked = []

    def ask(what: str) -> str:
        asked.append(what)
        return "correct horse"

    assert open_signer(str(tmp_path / "ada.key"), ask, {}).public_key == made.public_key
    assert asked == [f"password of {tmp_path / 'ada.key'}"]
    with pytest.raises(NotAllowedError, match="wrong password") as refused:
        open_signer(str(tmp_path / "ada.key"), lambda _: "wrong", {})
    assert "correct" not in str(refused.value)
    assert b"ENCRYPTED" in (tmp_path / "ada.key").read_bytes()


def test_what_is_no_key(tmp_path: Path) -> None:
    """Missing, open to others, damaged, of an unknown scheme, of a service without its library."""
    with pytest.raises(NotFoundError, match="no such key file"):
        open_signer(str(tmp_path / "absent"), never, {})
    path = tmp_path / "ada.key"
    path.write_bytes(b"nonsense")
    path.chmod(0o644)
    with pytest.raises(NotAllowedError, match="mode 644; make it 600"):
        open_signer(str(path), never, {})
    path.chmod(0o600)
    with pytest.raises(OperationError, match="expected a private key for signing"):
        open_signer(str(path), never, {})
    with pytest.raises(UsageError, match=r"expected a file or one of .*hsm"):
        open_signer("carrier-pigeon:ada", never, {})
    with pytest.raises(UsageError, match="0 keys come into question"):
        open_signer("gcpkms:projects/x", never, {})
    key = CryptoSigner.generate_ecdsa().public_key
    with pytest.raises(OperationError, match="key gcpkms:projects/x"):
        open_signer("gcpkms:projects/x", never, {key.keyid: key}).sign(b"x")


def test_a_lazy_key_is_opened_when_it_signs(tmp_path: Path) -> None:
    """Until then nobody is asked; another key at its place is refused."""
    made = create_signing_key(tmp_path / "ada.key", "secret")
    lazy = LazySigner(str(tmp_path / "ada.key"), made.public_key, lambda _: "secret")
    lazy.public_key.verify_signature(lazy.sign(b"x"), b"x")
    other = LazySigner(str(tmp_path / "ada.key"), CryptoSigner.generate_ed25519().public_key, lambda _: "secret")
    with pytest.raises(OperationError, match=r"expected .*, found .*; correct keys/holders.json"):
        other.sign(b"x")


def test_public_halves_are_handed_over_with_their_holder(tmp_path: Path) -> None:
    """Name and URI in comment lines; a bare PEM is its file's name; nothing is overwritten."""
    key = CryptoSigner.generate_ed25519().public_key
    write_public_key(tmp_path / "ada.pub", key, Holder(holder="Ada L", uri="hsm:2?label=a"))
    assert (read_public_key(tmp_path / "ada.pub").key, read_public_key(tmp_path / "ada.pub").holder.holder) == (
        key,
        "Ada L",
    )
    bare = tmp_path / "bob.pub"
    bare.write_bytes((tmp_path / "ada.pub").read_bytes().split(b"\n", 2)[2])
    assert read_public_key(bare).holder == Holder(holder="bob")
    with pytest.raises(ConflictError):
        write_public_key(bare, key, Holder(holder="x"))
    bare.write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="expected a public key"):
        read_public_key(bare)
    bare.write_bytes(b"x" * 20_000)
    with pytest.raises(UsageError, match="at most"):
        read_public_key(bare)


def test_the_list_of_holders(tmp_path: Path) -> None:
    """None is an empty one; a damaged one says so."""
    file = tmp_path / "holders.json"
    assert read_holders(file) == Holders()
    file.write_text('{"keys": {"ab": {"holder": "A\\u001b"}}}')
    with pytest.raises(OperationError, match=r"keys.ab.holder: .*; mend it"):
        read_holders(file)


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A token with one P-256 key, PIN 1234."""
    if not MODULE.exists() or shutil.which("softhsm2-util") is None:
        warnings.warn("SoftHSM 2 is not installed: keys on tokens were NOT tested", stacklevel=1)
        pytest.skip("SoftHSM 2 is not installed: apt-get install softhsm2")
    (tmp_path / "tokens").mkdir()
    config = tmp_path / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(config))
    monkeypatch.setenv("PYKCS11LIB", str(MODULE))
    pem = tmp_path / "key.pem"
    private = ec.generate_private_key(ec.SECP256R1())
    pem.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    label = f"ada-{os.getpid()}"
    for words in (
        ["--init-token", "--free", "--label", label, "--pin", "1234", "--so-pin", "5678"],
        ["--import", str(pem), "--token", label, "--label", "signing", "--id", "02", "--pin", "1234"],
    ):
        subprocess.run(["softhsm2-util", *words], check=True, capture_output=True)
    return f"hsm:2?label={label}"


def test_a_key_on_a_token(token: str) -> None:
    """Its public half is read from the token; signing asks for the PIN; a wrong PIN or label is one sentence."""
    opened = open_signer(token, lambda _: "1234", {})
    opened.public_key.verify_signature(opened.sign(b"x"), b"x")
    lazy = LazySigner(token, opened.public_key, lambda _: "9999")
    with pytest.raises(NotAllowedError, match="wrong PIN"):
        lazy.sign(b"x")
    with pytest.raises(OperationError, match="No PKCS#11 token found"):
        open_signer("hsm:2?label=nobody", never, {})
    with pytest.raises(UsageError, match="a number as KEYID"):
        open_signer("hsm:two", never, {})


def test_a_token_without_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Says which variable is missing."""
    monkeypatch.delenv("PYKCS11LIB", raising=False)
    with pytest.raises(OperationError, match="PYKCS11LIB"):
        open_signer("hsm:2", never, {})
