"""Today's code reads the bytes that devices in the field speak, and writes the same ones."""

import hashlib
import json
from pathlib import Path

import pytest

from orchestrator.package import PackageReader
from protocol.directives import ANNOUNCEMENT_TYPE, OFFER_TYPE, Announcement, Offer
from protocol.encryption import (
    PACKAGE_RECIPIENT,
    apply_delta,
    open_chunk,
    open_delta_body,
    open_manifest,
    unwrap_key,
)
from protocol.envelopes import decode, open_envelope, verify_with
from protocol.manifest import Manifest
from protocol.trust.bundle import unpack_bundle
from tests.golden import samples
from tests.golden.regenerate import package, sealed_files, signed_files

DEVICE = {"release": hashlib.sha256((samples.FOLDER / "manifest.sealed").read_bytes()).hexdigest(), "device": "dev1"}


def golden(name: str) -> bytes:
    """The bytes of a golden file."""
    return (samples.FOLDER / name).read_bytes()


def test_every_file_has_a_test_and_every_format_a_file() -> None:
    """No format is without an example, and no example is left over."""
    assert {path.name for path in samples.FOLDER.iterdir()} == set(signed_files()) | set(sealed_files())


@pytest.mark.parametrize("name", samples.MESSAGES)
def test_a_message_reads_as_it_was_meant(name: str) -> None:
    """The bytes of the file decode to the very values that they were made of."""
    message = samples.MESSAGES[name]
    assert decode(golden(f"{name}.json"), type(message)) == message


@pytest.mark.parametrize("name", signed_files())
def test_the_same_values_make_the_same_bytes(name: str) -> None:
    """Field order, number forms, times, signatures and ciphertexts have not moved by a byte."""
    assert signed_files()[name] == golden(name)


@pytest.mark.parametrize(
    ("name", "payload_type", "model"),
    [("announcement", ANNOUNCEMENT_TYPE, Announcement), ("offer", OFFER_TYPE, Offer)],
)
def test_a_signed_directive_verifies(name: str, payload_type: str, model: type[Announcement] | type[Offer]) -> None:
    """The signature of the file holds, and its payload is the file beside it."""
    verify = verify_with(samples.DIRECTOR.public_key)
    message, payload = open_envelope(golden(f"{name}.dsse"), 8192, payload_type, verify, model)
    assert message == samples.MESSAGES[name]
    assert payload == golden(f"{name}.json")


def test_the_sealed_manifest_opens_with_its_wrapped_key() -> None:
    """A device unwraps the content key and reads the manifest, chunk keys included."""
    cek = unwrap_key(golden("key-wrap.bin"), samples.CONTENT_KEY, **DEVICE)
    manifest = Manifest.from_json(open_manifest(cek, golden("manifest.sealed")))
    assert manifest == samples.MANIFEST
    (ref,) = manifest.artifacts[0].chunk_refs()
    assert ref == samples.CHUNK
    assert open_chunk(ref, golden("chunk.bin")) == samples.PLAIN


def test_a_chunk_is_made_from_its_delta() -> None:
    """A device that has the former stream makes the chunk from a shorter body."""
    (artifact,) = Manifest.from_json(golden("manifest-deltas.json")).artifacts
    ((index, delta),) = artifact.deltas[0].delta_refs()
    assert (index, delta) == (0, samples.DELTA)
    body = open_delta_body(delta, golden("delta.bin"))
    assert apply_delta(samples.CHUNK, delta, body, samples.OLD_STREAM) == samples.PLAIN


def test_the_trust_bundle_unpacks() -> None:
    """zlib of JSON of file names and texts."""
    assert unpack_bundle(golden("trust-bundle.bin")) == {"1.root.json": b"{}", "1.targets.json": b'{"signed":{}}'}


def test_the_package_reads_and_is_written_the_same(tmp_path: Path) -> None:
    """A package of the first version is read blob by blob, and the same blobs make the same file."""
    path = tmp_path / "release.package"
    path.write_bytes(golden("release.package"))
    digest = DEVICE["release"]
    with PackageReader(path) as reader:
        assert reader.header.manifest_sha256 == digest
        assert reader.read(f"chunk/{samples.CID.hex()}", 4096) == samples.CIPHERTEXT
        sealed, cek = reader.read(f"piece/{digest}", 65_536), reader.read("cek", 4096)
        trust = {name.removeprefix("trust/"): reader.read(name, 65_536) for name in reader.names("trust/")}
    assert sealed == golden("manifest.sealed")
    opened = open_manifest(unwrap_key(cek, samples.CONTENT_KEY, release=digest, device=PACKAGE_RECIPIENT), sealed)
    assert json.loads(opened)["v"] == 1
    assert package(sealed, cek, trust) == golden("release.package")
