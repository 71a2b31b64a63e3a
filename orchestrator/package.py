"""The package: one file that carries a release from the publisher to the orchestrator.

    b"FLAGPKG1" | blob | blob | ... | index (JSON) | index offset u64 | index length u64 | sha256(index)

    release.json          what this package is (PackageHeader)
    trust/{file name}     TUF metadata
    cek                   the content key, sealed (HPKE) to the signer
    piece/{sha256}        pieces of the sealed manifest
    chunk/{cid}           encrypted chunks

Blobs follow one another without gaps in the index's order, and each has a digest: a chunk and a piece in its name, the
others in the index. So no byte can change unseen. That is about damage only: who made it, the TUF metadata says.
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from orchestrator.errors import ConflictError, NotFoundError, OperationError
from protocol.identifiers import DigestText, IdText, VersionText

MAGIC: Final = b"FLAGPKG1"
MAX_INDEX_BYTES: Final = 64 * 2**20
MAX_BLOB_BYTES: Final = 2**20
RELEASE: Final = "release.json"
CEK: Final = "cek"
CHUNK: Final = "chunk/"
PIECE: Final = "piece/"
TRUST: Final = "trust/"
FOOTER = struct.Struct(">QQ32s")
NAMED_BY_DIGEST = (CHUNK, PIECE)


class PackageHeader(BaseModel):
    """What a package says it is; ``release.json``. Unproven until the trust metadata was checked."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1] = 1
    fleet: IdText
    product: IdText
    version: VersionText
    manifest_sha256: DigestText


_Row = tuple[
    Annotated[str, Field(pattern=r"^[a-z]+(\.json|/[0-9A-Za-z][0-9A-Za-z._-]{0,160})?$")],
    Annotated[int, Field(ge=0, le=MAX_BLOB_BYTES)],
    Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")],
]


class _Index(BaseModel):
    """The list of blobs, in file order: (name, length, sha256 unless the name has it)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    v: Literal[1] = 1
    blobs: list[_Row]


_INDEX = TypeAdapter(_Index)


@dataclass(frozen=True, slots=True)
class _Place:
    offset: int
    length: int
    sha256: str


class PackageReader:
    """Reads a package: its index is proven whole before a blob is handed out, each blob before it is returned."""

    def __init__(self, path: Path) -> None:
        """Open a package and check its frame.

        Raises:
            NotFoundError: There is no such file.
            OperationError: It is not a package, or it is damaged.
        """
        self._path = path
        if not path.is_file():
            raise NotFoundError(f"package {path}: no such file; make one with 'flagship release create'")
        with explained(path, "read"):
            self._file: BinaryIO = path.open("rb")
        try:
            with explained(path, "read"):
                self._places = self._read_index()
            self.header = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        """The reader."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def names(self, prefix: str = "") -> Iterator[str]:
        """Names of blobs that start with ``prefix``, in file order."""
        return (name for name in self._places if name.startswith(prefix))

    def length(self, name: str) -> int:
        """Bytes of a blob.

        Raises:
            OperationError: The package lacks it.
        """
        return self._place(name).length

    def read(self, name: str, cap: int = MAX_BLOB_BYTES) -> bytes:
        """A blob, proven to be what was written.

        Args:
            name: As ``names`` gives it.
            cap: Largest size the caller takes.

        Raises:
            OperationError: The package lacks it, it is larger than ``cap``, or it is damaged.
        """
        place = self._place(name)
        if place.length > cap:
            raise OperationError(f"package {self._path}: {name} has {place.length} B, expected at most {cap}")
        with explained(self._path, "read"):
            data = os.pread(self._file.fileno(), place.length, place.offset)
        if len(data) != place.length or hashlib.sha256(data).hexdigest() != place.sha256:
            raise self._damaged(f"{name} is not what was written")
        return data

    def _place(self, name: str) -> _Place:
        try:
            return self._places[name]
        except KeyError:
            raise self._damaged(f"{name} is missing") from None

    def _read_index(self) -> dict[str, _Place]:
        size = os.fstat(self._file.fileno()).st_size
        start, end = len(MAGIC), size - FOOTER.size
        if self._file.read(start) != MAGIC:
            raise OperationError(
                f"package {self._path}: expected a Flagship package, found something else; "
                "make one with 'flagship release create'"
            )
        if end < start:
            raise self._damaged("it is cut short")
        offset, length, digest = FOOTER.unpack(os.pread(self._file.fileno(), FOOTER.size, end))
        if offset < start or length > MAX_INDEX_BYTES or offset + length != end:
            raise self._damaged("it is cut short or its end is not an index")
        raw = os.pread(self._file.fileno(), length, offset)
        if hashlib.sha256(raw).digest() != digest:
            raise self._damaged("its index is not what was written")
        try:
            index = _INDEX.validate_json(raw)
        except ValidationError as error:
            raise self._damaged("its index does not have the form of version 1") from error
        return self._placed(index, offset)

    def _placed(self, index: _Index, end: int) -> dict[str, _Place]:
        places: dict[str, _Place] = {}
        offset = len(MAGIC)
        for name, length, digest in index.blobs:
            named = name.startswith(NAMED_BY_DIGEST)
            sha256 = name.partition("/")[2] if named else digest
            if name in places or bool(digest) == named or len(sha256) != 64:
                raise self._damaged("its index names a part twice or without a digest")
            places[name] = _Place(offset, length, sha256)
            offset += length
        if offset != end:
            raise self._damaged("its parts do not fill the file")
        return places

    def _read_header(self) -> PackageHeader:
        raw = self.read(RELEASE, 4096)
        try:
            return PackageHeader.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise self._damaged(f"{RELEASE}: {place}: {first['msg']}") from error

    def _damaged(self, why: str) -> OperationError:
        return OperationError(f"package {self._path}: damaged, {why}; fetch or create it again")


@contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """Turn what the disk says into one sentence; ``what`` is read or written."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"package {path}: the folder {path.parent} does not exist") from error
    except IsADirectoryError as error:
        raise ConflictError(f"package {path}: expected a file, found a folder") from error
    except OSError as error:
        raise OperationError(f"package {path}: cannot be {what}: {error.strerror or error}") from error
