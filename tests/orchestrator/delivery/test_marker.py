"""What a marker proves."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.delivery.marker import published_up_to
from protocol.envelopes import encode
from protocol.status_messages import Sync


def _marker(database: str, serial: int) -> bytes:
    return encode(Sync(at=datetime(2026, 11, 24, tzinfo=UTC), database=database, serial=serial, ingest="x"))


@pytest.mark.parametrize(
    ("raw", "known"),
    [
        (None, 0),
        (b"", 0),
        (b"nonsense", 0),
        (b"x" * 5000, 0),
        (_marker("other", 5), 0),
        (_marker("mine", 11), 0),
        (_marker("mine", -1), 0),
        (_marker("mine", 5), 5),
        (_marker("mine", 10), 10),
    ],
    ids=["absent", "empty", "nonsense", "oversize", "foreign", "ahead", "negative", "behind", "even"],
)
def test_what_is_known_of_a_broker(raw: bytes | None, known: int) -> None:
    """Only our own marker, not ahead of the database, proves anything."""
    assert published_up_to(raw, "mine", 10) == known


@given(raw=st.binary(max_size=2000), last=st.integers(0, 100))
def test_garbage_proves_nothing(raw: bytes, last: int) -> None:
    """No bytes raise, and none claim more than was published."""
    assert 0 <= published_up_to(raw, "mine", last) <= last
