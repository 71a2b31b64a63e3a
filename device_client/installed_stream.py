"""The stream of a version that is in place, as far as it is known: installers describe it, downloads read from it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class InstalledStream:
    """What a version in place consists of. The disk may say otherwise by now: whoever reads it verifies.

    Attributes:
        root: The directory or file.
        files: (path below ``root``, length, sha256), in stream order; the path is empty where ``root`` is the file.
        sha256: Of the stream, hex; empty where nobody noted it.
        chunks: (sha256, length) of the plain chunks, in stream order; empty where nobody noted them.
    """

    root: Path
    files: tuple[tuple[str, int, str], ...]
    sha256: str = ""
    chunks: tuple[tuple[bytes, int], ...] = ()
