"""When the last update was committed."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from device_client.last_update import LastUpdate


def test_it_survives_a_restart(tmp_path: Path) -> None:
    """Another process reads the same instant."""
    at = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
    LastUpdate(tmp_path / "last").note(at)
    assert LastUpdate(tmp_path / "last")() == at


@pytest.mark.parametrize("content", [None, b"", b"yesterday", b"\xff", b"x" * 100])
def test_what_cannot_be_told_is_no_update(tmp_path: Path, content: bytes | None) -> None:
    """A missing or damaged file keeps no update away."""
    if content is not None:
        (tmp_path / "last").write_bytes(content)
    assert LastUpdate(tmp_path / "last")() is None
