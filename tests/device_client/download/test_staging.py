"""A staged file: its place, its descriptor, and the words for a disk that fails."""

import errno
import gc
import hashlib
import os
from pathlib import Path

import pytest

from device_client.download.staging import Stage, explained
from protocol.errors import ContentError, ErrorCode
from tests.device_client.lab import open_below


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    """A link that somebody put into staging leads nowhere; what it points at stays."""
    (tmp_path / "victim").write_bytes(b"keep me")
    (tmp_path / "x.stream").symlink_to("victim")
    with pytest.raises(ContentError) as error:
        Stage(tmp_path / "x.stream", 3)
    assert error.value.code is ErrorCode.SPACE
    assert (tmp_path / "victim").read_bytes() == b"keep me"


def test_a_stage_that_nobody_holds_is_closed(tmp_path: Path) -> None:
    """A stage that a cancelled download left to nobody does not keep its descriptor."""
    stage = Stage(tmp_path / "file", 3)
    assert len(open_below(tmp_path)) == 1
    del stage
    gc.collect()
    assert open_below(tmp_path) == []


def test_it_hashes_what_is_on_the_disk(tmp_path: Path) -> None:
    """The hash is of the whole length, holes included; only its owner may read it."""
    stage = Stage(tmp_path / "file", 2**20 + 5)
    assert stage.is_new
    stage.write(2**20, b"abc")
    assert stage.sha256() == hashlib.sha256(b"\0" * 2**20 + b"abc\0\0").hexdigest()
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    stage.close()
    stage.close()


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk is full"), (errno.EIO, "cannot be read or written")],
)
def test_a_disk_that_fails_is_one_sentence(tmp_path: Path, number: int, words: str) -> None:
    """E_SPACE, the place, and no promise that the transfer goes on: it ends, and an operator lets it try again."""
    with pytest.raises(ContentError, match=words) as error, explained(tmp_path / "x.stream"):
        raise OSError(number, os.strerror(number))
    assert error.value.code is ErrorCode.SPACE
    assert str(tmp_path) in error.value.detail
    assert "by itself" not in error.value.detail
