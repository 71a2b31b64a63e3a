"""What tests of the device share: artifacts that are made of files in memory, and deaths at any instant."""

import base64
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from protocol.chunks import Codec
from protocol.manifest import Artifact, FileEntry, LinkEntry
from tests import power_cuts

Files = Mapping[str, tuple[int, bytes]]


@pytest.fixture(scope="session")
def directory_artifact() -> Callable[[Files, Mapping[str, str]], tuple[Artifact, bytes]]:
    """Makes (artifact, stream) of a directory from {path: (mode, content)} and {path: target}."""
    return _directory_artifact


@pytest.fixture(scope="session")
def file_artifact() -> Callable[[bytes, int | None], tuple[Artifact, bytes]]:
    """Makes (artifact, stream) of a single file, with a mode or without one."""
    return _file_artifact


@pytest.fixture(scope="session")
def dies_at() -> Callable[[int, Path, Callable[[], object]], bool]:
    """Runs work in a process of its own that is gone before its n-th change of the disk; whether it was cut."""
    return power_cuts.dies_at


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name."""
    path = Path(tempfile.mkdtemp(prefix="fs-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def _directory_artifact(files: Files, links: Mapping[str, str]) -> tuple[Artifact, bytes]:
    stream, entries = b"", []
    for path, (mode, content) in sorted(files.items()):
        digest = hashlib.sha256(content).hexdigest()
        entries.append(FileEntry(path=path, mode=mode, offset=len(stream), length=len(content), sha256=digest))
        stream += content
    artifact = Artifact(
        component="app",
        kind="directory",
        length=len(stream),
        sha256=hashlib.sha256(stream).hexdigest(),
        files=entries,
        links=[LinkEntry(path=path, target=target) for path, target in sorted(links.items())],
        chunks=_rows(stream),
    )
    return artifact, stream


def _file_artifact(content: bytes, mode: int | None) -> tuple[Artifact, bytes]:
    digest = hashlib.sha256(content).hexdigest()
    entries = [] if mode is None else [FileEntry(path="app", mode=mode, offset=0, length=len(content), sha256=digest)]
    artifact = Artifact(
        component="app",
        kind="file",
        name="app",
        length=len(content),
        sha256=digest,
        files=entries,
        chunks=_rows(content),
    )
    return artifact, content


def _rows(stream: bytes) -> list[tuple[str, str, str, Codec, int, int]]:
    if not stream:
        return []
    plain = base64.b64encode(hashlib.sha256(stream).digest()).decode()
    return [(plain, plain, plain, Codec.RAW, len(stream), len(stream))]
