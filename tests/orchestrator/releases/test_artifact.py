"""What a package carries against its manifest: chunks, stream, files, and what can be run."""

import base64
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from orchestrator.errors import OperationError
from orchestrator.package import CHUNK, RELEASE, PackageHeader, PackageReader
from orchestrator.package_writer import PackageWriter
from orchestrator.publisher.packing import pack
from orchestrator.releases.artifact import check_artifact
from protocol.chunks import TAG_BYTES, Codec
from protocol.encryption import encrypt_body
from protocol.envelopes import b64, encode, sign, verify_with
from protocol.errors import ContentError, ErrorCode
from protocol.executables import EXECUTABLES_TYPE, ExecutableList
from protocol.manifest import Artifact, DeltaSet
from tests.protocol.trust.repository import release_info

TEAM = CryptoSigner.generate_ed25519()
VERIFY = verify_with(TEAM.public_key)
INFO = release_info()


@pytest.fixture
def packed(tmp_path: Path) -> tuple[Path, Artifact]:
    """A package of three files, the first of which is a script, and its artifact."""
    image, package = tmp_path / "image", tmp_path / "package"
    image.mkdir()
    (image / "a.sh").write_bytes(b"#!/bin/sh\nexit 0\n")
    (image / "b.bin").write_bytes(bytes(range(256)) * 2000)
    (image / "c.py").write_bytes(b"c = 1\n")
    with PackageWriter(package) as writer:
        found = pack(image, "app", b"k" * 32, lambda cid, data: writer.add(CHUNK + cid, data))
        header = PackageHeader(fleet="harbour", product=INFO.product, version=INFO.version, manifest_sha256="0" * 64)
        writer.add(RELEASE, header.model_dump_json().encode())
        writer.finish()
    return package, found.artifact


def check(package: Path, artifact: Artifact) -> dict[str, int]:
    """As an import does where the fleet has a codesign role."""
    with PackageReader(package) as reader:
        return check_artifact(reader, artifact, INFO, VERIFY)


def listing(artifact: Artifact, *paths: str) -> Artifact:
    """The artifact with a signed list of some of its files."""
    entries = [(entry.path, entry.sha256) for entry in artifact.files if entry.path in paths]
    listed = ExecutableList(product=INFO.product, component="app", version=INFO.version, entries=entries)
    text = sign(encode(listed), EXECUTABLES_TYPE, TEAM).decode()
    return artifact.model_copy(update={"executables": text})


def test_a_whole_artifact_passes(packed: tuple[Path, Artifact]) -> None:
    """Chunks by id with their lengths; with and without a list of executables."""
    package, artifact = packed
    with PackageReader(package) as reader:
        chunks = check_artifact(reader, artifact, INFO, None)
    assert set(chunks) == {ref.cid.hex() for ref in artifact.chunk_refs()}
    assert check(package, listing(artifact, "a.sh", "c.py")) == chunks


@pytest.mark.parametrize(
    ("paths", "code"),
    [(("c.py",), ErrorCode.EXEC_UNLISTED), (("a.sh",), ErrorCode.EXEC_UNLISTED), (None, ErrorCode.EXEC_SIGNATURE)],
)
def test_what_a_device_would_refuse_is_not_imported(
    packed: tuple[Path, Artifact], paths: tuple[str, ...] | None, code: ErrorCode
) -> None:
    """A program that is not listed, and a missing list, are found before any device is bothered."""
    package, artifact = packed
    with pytest.raises(ContentError) as caught:
        check(package, artifact if paths is None else listing(artifact, *paths))
    assert caught.value.code is code


BODY = b"a delta's body"


def with_delta(
    packed: tuple[Path, Artifact], *, kept: bytes | None = None, key: bytes | None = None, length: int = len(BODY)
) -> tuple[Path, Artifact]:
    """The package and the artifact with a delta of the first chunk; what the package holds of it may differ."""
    package, artifact = packed
    cid, made_key, ciphertext = encrypt_body(b"k" * 32, Codec.DELTA, BODY)
    target = package.with_suffix(".deltas")
    with PackageReader(package) as reader, PackageWriter(target) as writer:
        for name in reader.names(""):
            writer.add(name, reader.read(name))
        writer.add(CHUNK + cid.hex(), ciphertext if kept is None else kept)
        writer.finish()
    row = (0, b64(cid), b64(key or made_key), length, 0, 100, b64(b"b" * 32))
    deltas = DeltaSet(sha256="ab" * 32, length=100, rows=[row])
    return target, artifact.model_copy(update={"deltas": [deltas]})


def test_deltas_are_chunks_of_the_release(packed: tuple[Path, Artifact]) -> None:
    """They are listed with their lengths, so that they are kept, published and counted."""
    package, artifact = with_delta(packed)
    chunks = check(package, listing(artifact, "a.sh", "c.py"))
    (row,) = artifact.deltas[0].rows
    assert chunks[base64.b64decode(row[1]).hex()] == len(BODY) + TAG_BYTES
    assert len(chunks) == len({ref.cid for ref in artifact.chunk_refs()}) + 1


@pytest.mark.parametrize(
    ("kept", "key", "length", "why"),
    [
        (b"x" * (len(BODY) + TAG_BYTES), None, len(BODY), "damaged"),
        (None, b"w" * 32, len(BODY), "tag"),
        (None, None, len(BODY) + 1, "B expected"),
        (None, None, len(BODY) - 1, "expected at most"),
    ],
)
def test_a_delta_that_is_not_what_was_signed_is_refused(
    packed: tuple[Path, Artifact], kept: bytes | None, key: bytes | None, length: int, why: str
) -> None:
    """By its name, its length and its key; what it would make can only be seen by a device that has the base."""
    package, artifact = with_delta(packed, kept=kept, key=key, length=length)
    with pytest.raises((ContentError, OperationError), match=why):
        check(package, listing(artifact, "a.sh", "c.py"))


def test_a_file_that_is_not_what_was_signed_is_named(packed: tuple[Path, Artifact]) -> None:
    """The chunks make the stream, but the manifest's hash of one file is another one."""
    package, artifact = packed
    files = [artifact.files[0], artifact.files[1].model_copy(update={"sha256": "0" * 64}), artifact.files[2]]
    with pytest.raises(OperationError, match=r"b\.bin"):
        check(package, listing(artifact.model_copy(update={"files": files}), "a.sh", "c.py"))
