"""The list of a component's executables, signed by the team that builds it. Pure.

Release keys say which files a release has; codesign keys say which of them may run. Who steals the former cannot add
a program: a file that looks executable and is not listed, or is listed with another hash, is refused.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from protocol.envelopes import Verify, open_envelope
from protocol.errors import ContentError, EnvelopeError, ErrorCode
from protocol.identifiers import DigestText, IdText, VersionText
from protocol.manifest import MAX_FILES, Artifact, ReleaseInfo

EXECUTABLES_TYPE = "application/vnd.flagship.executables+json"
MAX_LIST_BYTES = 24 * 2**20
HEAD_BYTES = 4
"""How much of a file's beginning tells whether it is a program."""

_MAGIC = (b"\x7fELF", b"#!")
_NAMES = re.compile(r"\.(so(\.[0-9.]+)?|py|pyc|ko)\Z")
_EXECUTE = 0o111


class ExecutableList(BaseModel):
    """What codesign keys sign: one version of one component.

    Attributes:
        entries: (path inside the artifact, sha256 hex of the file), sorted by path.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: Literal[1] = 1
    type: Literal["executables"] = "executables"
    product: IdText
    component: IdText
    version: VersionText
    entries: Annotated[list[tuple[str, DigestText]], Field(max_length=MAX_FILES)]


def is_executable(path: str, mode: int, head: bytes) -> bool:
    """Whether a file can be run, or loaded by what runs: its mode, its first bytes or its name say so.

    Args:
        head: The first ``HEAD_BYTES`` of the file, or all of a shorter one.
    """
    return bool(mode & _EXECUTE) or head.startswith(_MAGIC) or _NAMES.search(path) is not None


def open_list(artifact: Artifact, info: ReleaseInfo, verify: Verify) -> ExecutableList:
    """An artifact's list of executables, verified.

    Args:
        verify: By the codesign keys that the offline metadata names for the component.

    Raises:
        ContentError: E_EXEC_SIGNATURE: it is missing, not signed as it must be, or of another release.
    """
    what = f"list of executables of {artifact.component}"
    if not artifact.executables:
        raise ContentError(ErrorCode.EXEC_SIGNATURE, f"{what}: the release carries none")
    try:
        raw = artifact.executables.encode()
        listed, _ = open_envelope(raw, MAX_LIST_BYTES, EXECUTABLES_TYPE, verify, ExecutableList)
    except EnvelopeError as error:
        raise ContentError(ErrorCode.EXEC_SIGNATURE, f"{what}: {error.detail}") from error
    found = (listed.product, listed.component, listed.version)
    if found != (info.product, artifact.component, info.version):
        raise ContentError(ErrorCode.EXEC_SIGNATURE, f"{what}: it is of {' '.join(found)}")
    return listed


def check_executables(found: Iterable[tuple[str, str]], listed: ExecutableList) -> None:
    """See that every executable of a tree is listed as it is.

    Args:
        found: (path, sha256 hex) of each file for which ``is_executable`` holds.

    Raises:
        ContentError: E_EXEC_UNLISTED, or E_EXEC_SIGNATURE for another content; names the first path.
    """
    known = dict(listed.entries)
    for path, sha256 in found:
        if path not in known:
            raise ContentError(
                ErrorCode.EXEC_UNLISTED, f"{path!r} can be run and is not in the signed list of {listed.component}"
            )
        if known[path] != sha256:
            raise ContentError(
                ErrorCode.EXEC_SIGNATURE, f"{path!r}: expected sha256 {known[path][:16]}, found {sha256[:16]}"
            )
