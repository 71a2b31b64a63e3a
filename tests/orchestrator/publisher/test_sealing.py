"""The sealed manifest: only the signer opens it, and its pieces are the whole."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from orchestrator.publisher.sealing import seal
from protocol.chunks import PIECE_BYTES
from protocol.encryption import PACKAGE_RECIPIENT, open_manifest, unwrap_key
from protocol.errors import ContentError
from protocol.manifest import Artifact, FileEntry, Manifest


def manifest(files: int = 1) -> Manifest:
    """A manifest of small files, each in no chunk at all but the first."""
    entries = [
        FileEntry(path=f"f{n}", mode=0o644, offset=n, length=1, sha256=hashlib.sha256(str(n).encode()).hexdigest())
        for n in range(files)
    ]
    row = ("A" * 43 + "=", "A" * 43 + "=", "A" * 43 + "=", "raw", files, files)
    artifact = Artifact.model_validate(
        {
            "component": "app",
            "kind": "directory",
            "length": files,
            "sha256": "a" * 64,
            "files": entries,
            "chunks": [row],
        }
    )
    return Manifest(product="gateway", version="1.0.0", artifacts=[artifact])


def test_only_the_signer_opens_it() -> None:
    """The wrapped key opens for the signer and this release, and for nobody else."""
    key = X25519PrivateKey.generate()
    sealed = seal(manifest(), key.public_key())
    cek = unwrap_key(sealed.wrapped_key, key, release=sealed.sha256, device=PACKAGE_RECIPIENT)
    assert Manifest.from_json(open_manifest(cek, sealed.data)) == manifest()
    with pytest.raises(ContentError):
        unwrap_key(sealed.wrapped_key, X25519PrivateKey.generate(), release=sealed.sha256, device=PACKAGE_RECIPIENT)
    with pytest.raises(ContentError):
        unwrap_key(sealed.wrapped_key, key, release="b" * 64, device=PACKAGE_RECIPIENT)


def test_pieces_make_the_whole() -> None:
    """Pieces in order are the sealed manifest, each named by its hash, none longer than a piece."""
    sealed = seal(manifest(4000), X25519PrivateKey.generate().public_key())
    assert len(sealed.pieces) > 1
    assert b"".join(piece for _, piece in sealed.pieces) == sealed.data
    assert all(hashlib.sha256(piece).hexdigest() == name for name, piece in sealed.pieces)
    assert all(len(piece) == PIECE_BYTES for _, piece in sealed.pieces[:-1])


def test_a_manifest_is_never_sealed_alike() -> None:
    """Each seal has a fresh key and nonce."""
    key = X25519PrivateKey.generate().public_key()
    assert seal(manifest(), key).data != seal(manifest(), key).data
