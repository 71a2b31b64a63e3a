"""How an artifact is cut, and how a body is bounded: parameters and arithmetic, no bytes.

artifact -> content-defined chunks -> body (zstd | raw | delta) -> encrypt -> chunk/{cid}
"""

from dataclasses import dataclass
from enum import StrEnum

ALGORITHM = "fastcdc-2020"
MIN_CHUNK_BYTES = 16_384
AVERAGE_CHUNK_BYTES = 65_536
MAX_CHUNK_BYTES = 262_144 - 64
"""64 B under 256 KiB, so that a raw body with its tag still fits the topic's cap."""
TAG_BYTES = 16
MAX_CIPHERTEXT_BYTES = MAX_CHUNK_BYTES + TAG_BYTES
PIECE_BYTES = 65_536
"""A sealed manifest travels in pieces of this size."""
MAX_WINDOW = 64
MIN_BASE_BYTES = 8
"""zstd takes no shorter dictionary."""
MAX_BASE_BYTES = 2**20
"""A delta is made against at most this much of a former stream: a device holds it in memory."""
MAX_BASES = 8
"""Former streams that one artifact has deltas against."""


class Codec(StrEnum):
    """How the plain chunk became the body."""

    RAW = "raw"
    ZSTD = "zstd"
    DELTA = "zd"
    """zstd with a range of a former stream as its dictionary; never the body of a chunk by itself."""


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """One chunk of an artifact's stream.

    Attributes:
        offset: Where the plain bytes stand in the stream.
        length: Plain bytes.
        sha256: Of the plain bytes, 32 B.
        cid: SHA-256 of the ciphertext, 32 B; the topic's name in hex.
        key: AES-256 key of this one body, 32 B.
        codec: How to turn the body into plain bytes.
        body_length: Bytes of the body; the ciphertext is ``TAG_BYTES`` longer.
    """

    offset: int
    length: int
    sha256: bytes
    cid: bytes
    key: bytes
    codec: Codec
    body_length: int


@dataclass(frozen=True, slots=True)
class DeltaRef:
    """Another way to one chunk: a body that makes its plain bytes together with a range of a former stream.

    Attributes:
        cid: SHA-256 of the ciphertext, 32 B; the topic's name in hex.
        key: AES-256 key of this one body, 32 B.
        body_length: Bytes of the body; the ciphertext is ``TAG_BYTES`` longer.
        base_offset: Where the range begins in the former stream.
        base_length: Bytes of the range, at most ``MAX_BASE_BYTES``.
        base_sha256: Of the range, 32 B: whoever lacks it need not ask for the delta.
    """

    cid: bytes
    key: bytes
    body_length: int
    base_offset: int
    base_length: int
    base_sha256: bytes


def piece_lengths(total_bytes: int) -> list[int]:
    """Lengths of the pieces of a sealed manifest of ``total_bytes`` > 0."""
    if total_bytes <= 0:
        raise ValueError("a sealed manifest is not empty")
    full, rest = divmod(total_bytes, PIECE_BYTES)
    return [PIECE_BYTES] * full + ([rest] if rest else [])
