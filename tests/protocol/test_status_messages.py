"""What dashboards read."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from protocol.envelopes import decode, encode
from protocol.status_messages import DeviceStatus, FleetStatus, RolloutStatus, StageStatus, StatusEvent, Sync

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "message",
    [
        FleetStatus(at=NOW, fleet="north", devices=3, online=2, versions={"1.0.0": 3}),
        RolloutStatus(
            at=NOW,
            id="r1",
            release="gateway/1.1.0",
            state="running",
            stages=[StageStatus(name="canary", state="open", members=1, offered=1)],
        ),
        DeviceStatus(at=NOW, id="dev1", online=True, percent=40),
        StatusEvent(at=NOW, kind="rollout_started", text="r1 started", rollout="r1"),
        Sync(at=NOW, database="db", serial=7, ingest="g1"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_status_message_reads_back(
    message: FleetStatus | RolloutStatus | DeviceStatus | StatusEvent | Sync,
) -> None:
    """A dashboard reads what was written, and fields that it does not know do not disturb it."""
    assert decode(encode(message), type(message)) == message
    assert decode(encode(message)[:-1] + b',"later":1}', type(message)) == message


def test_times_need_a_zone_and_percents_a_range() -> None:
    """A status without a zone, or beyond a hundred percent, is a bug that shows at once."""
    with pytest.raises(ValidationError):
        StatusEvent(at=datetime(2026, 11, 23), kind="x", text="x")  # noqa: DTZ001 - a naive time is the point
    with pytest.raises(ValidationError):
        DeviceStatus(at=NOW, id="dev1", online=True, percent=100.5)
