"""A device says that it may be cut off: its timestamp ran out, or the lease of what is open here."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from device_client.freshness import Freshness

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SOONER, LATER = NOON - timedelta(hours=2), NOON + timedelta(hours=2)


@dataclass
class Facts:
    """What verifier and runner know at noon."""

    stale: bool = False
    stale_since: datetime | None = None
    update: Any = None
    announcements: dict[str, Any] = field(default_factory=dict)

    def now(self) -> datetime:
        """Noon."""
        return NOON

    def judged(self) -> tuple[bool, datetime | None]:
        """(stale, since)."""
        fresh = Freshness(cast("Any", self), cast("Any", self))
        return fresh.stale, fresh.stale_since


def update(*, is_over: bool = False) -> Any:
    """An update of r-1."""
    return SimpleNamespace(is_over=is_over, offer=SimpleNamespace(rollout="r-1"))


def announced(expires: datetime) -> dict[str, Any]:
    """A lease of r-1."""
    return {"r-1": SimpleNamespace(expires=expires)}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param(Facts(), (False, None), id="fresh"),
        pytest.param(Facts(stale=True), (True, None), id="nothing ever came"),
        pytest.param(Facts(stale=True, stale_since=SOONER), (True, SOONER), id="timestamp"),
        pytest.param(Facts(update=update(), announcements=announced(SOONER)), (True, SOONER), id="lease"),
        pytest.param(Facts(update=update(), announcements=announced(NOON)), (True, NOON), id="lease, just now"),
        pytest.param(Facts(update=update(), announcements=announced(LATER)), (False, None), id="lease that lasts"),
        pytest.param(Facts(announcements=announced(SOONER)), (False, None), id="a rollout of others ended"),
        pytest.param(
            Facts(update=update(is_over=True), announcements=announced(SOONER)), (False, None), id="done with it"
        ),
        pytest.param(
            Facts(stale=True, stale_since=NOON, update=update(), announcements=announced(SOONER)),
            (True, SOONER),
            id="both: the first",
        ),
    ],
)
def test_stale_and_since_when(facts: Facts, expected: tuple[bool, datetime | None]) -> None:
    """Timestamp and lease are both looked at."""
    assert facts.judged() == expected
