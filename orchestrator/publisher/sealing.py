"""The sealed manifest: encrypted under a key of its own, named by its hash, cut into pieces that travel like chunks."""

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from orchestrator.errors import OperationError
from protocol.chunks import piece_lengths
from protocol.encryption import PACKAGE_RECIPIENT, seal_manifest, wrap_key
from protocol.manifest import MAX_MANIFEST_BYTES, Manifest

MAX_PIECES = 1024


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed manifest.

    Attributes:
        sha256: Of the whole, hex: the release's digest.
        pieces: (sha256 hex, bytes), in order.
        wrapped_key: The content key, sealed to the signer.
    """

    data: bytes
    sha256: str
    pieces: tuple[tuple[str, bytes], ...]
    wrapped_key: bytes


def seal(manifest: Manifest, signer: X25519PublicKey) -> Sealed:
    """Seal a manifest under a fresh key; only ``signer`` can open it.

    Raises:
        OperationError: The manifest is larger than a device would read.
    """
    text = manifest.to_json()
    if len(text) > MAX_MANIFEST_BYTES:
        raise _too_large(manifest, len(text))
    cek, data = seal_manifest(text)
    pieces: list[tuple[str, bytes]] = []
    offset = 0
    for length in piece_lengths(len(data)):
        piece = data[offset : offset + length]
        pieces.append((hashlib.sha256(piece).hexdigest(), piece))
        offset += length
    if len(pieces) > MAX_PIECES:
        raise _too_large(manifest, len(data))
    sha256 = hashlib.sha256(data).hexdigest()
    wrapped = wrap_key(cek, signer, release=sha256, device=PACKAGE_RECIPIENT)
    return Sealed(data, sha256, tuple(pieces), wrapped)


def _too_large(manifest: Manifest, size_bytes: int) -> OperationError:
    return OperationError(
        f"release {manifest.product}/{manifest.version}: its manifest has {size_bytes} B, "
        f"expected at most {MAX_MANIFEST_BYTES}; split the release"
    )
