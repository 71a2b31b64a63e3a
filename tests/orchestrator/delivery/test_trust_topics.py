"""The trust topics from the files of a home; when freshness is signed again."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.config import Home, Settings
from orchestrator.delivery.trust_topics import (
    TimestampFacts,
    newest,
    read_timestamp,
    renew_timestamp,
    renewal_due,
    trust_messages,
)
from orchestrator.errors import NotFoundError, OperationError
from orchestrator.signer.signer import TIMESTAMP_LIFE, Signer
from protocol.clock import ManualClock
from protocol.topics import Kind, Topics
from protocol.trust.bundle import unpack_bundle
from tests.orchestrator.delivery.lab import make_keys

NOW = datetime(2026, 11, 24, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with real metadata."""
    home = Home(tmp_path)
    make_keys(home)
    return home


@pytest.mark.parametrize(
    ("age", "snapshot", "highest", "due"),
    [
        (timedelta(0), 1, 3, False),
        (DAY - timedelta(seconds=1), 1, 3, False),
        (DAY, 1, 3, True),
        (timedelta(0), 2, 3, True),
        (timedelta(0), 1, 4, True),
    ],
    ids=["fresh", "almost a day", "a day", "newer snapshot", "a higher one was signed"],
)
def test_when_the_timestamp_is_signed_again(age: timedelta, snapshot: int, highest: int, *, due: bool) -> None:
    """By age, by what it names, and by what was signed."""
    facts = TimestampFacts(version=3, snapshot=1, expires=NOW - age + TIMESTAMP_LIFE)
    assert renewal_due(facts, snapshot, highest, NOW, DAY) is due


def test_it_is_renewed_long_before_it_runs_out() -> None:
    """However rarely somebody sets it to be renewed."""
    facts = TimestampFacts(version=3, snapshot=1, expires=NOW + TIMESTAMP_LIFE / 2)
    assert renewal_due(facts, 1, 3, NOW, timedelta(days=300))


def test_a_renewal_is_stored_and_happens_once(home: Home) -> None:
    """The file has the next version; a second look finds it fresh."""
    later = datetime.now(UTC) + 2 * DAY
    signer = Signer.open(home, Settings(fleet="fleet"), ManualClock(later))
    before = read_timestamp(home.trust)
    assert renew_timestamp(home.trust, signer, later, DAY)
    assert read_timestamp(home.trust).version == before.version + 1
    assert not renew_timestamp(home.trust, signer, later, DAY)


def test_messages_are_in_order_with_the_newest_of_each_role(home: Home) -> None:
    """Roots first, the timestamp last; an older snapshot is not in the bundle."""
    (home.trust / "2.snapshot.json").write_bytes((home.trust / "1.snapshot.json").read_bytes())
    messages = trust_messages(home.trust, Topics("fleet"))
    assert [m.kind for m in messages] == [Kind.TRUST_ROOT, Kind.TRUST_BUNDLE, Kind.TRUST_TIMESTAMP]
    names = set(unpack_bundle(messages[1].payload))
    assert names == {"1.root.json", "1.targets.json", "2.snapshot.json", "1.releases-gateway.json"}


def test_versions_are_compared_as_numbers(tmp_path: Path) -> None:
    """10 is newer than 9; what is not metadata is passed over."""
    for name in ("9.targets.json", "10.targets.json", "x.targets.json", "timestamp.json", "0.root.json"):
        (tmp_path / name).touch()
    assert {role: version for role, (version, _) in newest(tmp_path).items()} == {"targets": 10}


def test_missing_and_damaged_metadata_is_named(home: Home) -> None:
    """One sentence each."""
    (home.trust / "timestamp.json").write_text("{")
    with pytest.raises(OperationError, match=r"timestamp\.json"):
        read_timestamp(home.trust)
    (home.trust / "timestamp.json").unlink()
    with pytest.raises(NotFoundError, match=r"timestamp\.json"):
        read_timestamp(home.trust)
    (home.trust / "1.targets.json").unlink()
    with pytest.raises(NotFoundError, match="no targets metadata"):
        trust_messages(home.trust, Topics("fleet"))
