"""A certificate that cannot work is named before anything starts."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.errors import NotAllowedError, NotFoundError, OperationError
from orchestrator.fleet.authority import SERVICE_LIFE, create_authority, issue_client
from orchestrator.fleet.credentials import check_credentials

NOW = datetime.now(UTC)


@pytest.fixture
def issued(tmp_path: Path) -> dict[Path, Path]:
    """A client's certificate under its CA."""
    issue_client(create_authority(tmp_path, "ca"), tmp_path, "client")
    return {tmp_path / "client.pem": tmp_path / "ca.pem"}


def test_a_whole_pair_passes(issued: dict[Path, Path]) -> None:
    """Issued by this CA, in date, with its key."""
    check_credentials(issued, datetime.now(UTC))


def _foreign(directory: Path, name: str) -> None:
    other = directory / "other"
    other.mkdir()
    issue_client(create_authority(other, "ca"), other, "client")
    for file in other.glob(f"{name}*"):
        shutil.copy(file, directory)


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (lambda at: (at / "client.pem").unlink(), NotFoundError, "client.pem: is missing"),
        (lambda at: (at / "client.key").unlink(), NotFoundError, "client.key: is missing"),
        (lambda at: (at / "ca.pem").unlink(), NotFoundError, "ca.pem: is missing"),
        (lambda at: (at / "client.pem").write_bytes(b""), OperationError, "client.pem: expected a certificate"),
        (lambda at: (at / "client.key").write_bytes(b"\xff" * 90), OperationError, "client.key: expected an unencr"),
        (lambda at: (at / "ca.pem").write_bytes(b"x"), OperationError, "ca.pem: expected a certificate"),
        (lambda at: _foreign(at, "client.key"), OperationError, "client.key: is not the key of"),
        (lambda at: _foreign(at, "client"), OperationError, "client.pem: not issued by"),
        (lambda at: _foreign(at, "ca.pem"), OperationError, "client.pem: not issued by"),
    ],
)
def test_what_cannot_work_is_named(
    issued: dict[Path, Path], tmp_path: Path, damage: Callable[[Path], object], error: type[Exception], says: str
) -> None:
    """The file, what was expected, what to do."""
    damage(tmp_path)
    with pytest.raises(error, match=says):
        check_credentials(issued, datetime.now(UTC))


@pytest.mark.parametrize(
    ("at", "says"),
    [(NOW + SERVICE_LIFE + timedelta(days=1), "client.pem: expired on"), (NOW - timedelta(days=1), "set the clock")],
)
def test_a_certificate_out_of_date_is_refused(issued: dict[Path, Path], at: datetime, says: str) -> None:
    """Expired, or not valid yet: a clock that was never set."""
    with pytest.raises(NotAllowedError, match=says):
        check_credentials(issued, at)
