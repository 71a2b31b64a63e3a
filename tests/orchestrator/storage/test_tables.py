"""Columns: instants that sort, and ids that no row takes."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, text

from orchestrator.errors import ConflictError
from orchestrator.storage.database import Database
from orchestrator.storage.tables import Instant, devices, metadata

_INSTANTS = st.datetimes(datetime(1971, 1, 1), datetime(9998, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001


@given(_INSTANTS, _INSTANTS, st.integers(-14 * 60, 14 * 60))
def test_instants_sort_as_text_as_they_do_in_time(one: datetime, other: datetime, minutes: int) -> None:
    """Whatever their zone and fraction; and they read back as the same instant."""
    column, zone = Instant(), timezone(timedelta(minutes=minutes))
    left, right = (column.process_bind_param(at, None) for at in (one.astimezone(zone), other))
    assert left is not None
    assert right is not None
    assert (left < right) is (one < other)
    assert column.process_result_value(left, None) == one
    assert len(left) == 27


def test_a_time_without_a_zone_is_a_mistake_of_ours() -> None:
    """It would be somebody's local time."""
    with pytest.raises(ValueError, match="needs a zone"):
        Instant().process_bind_param(datetime(2026, 1, 1), None)  # noqa: DTZ001
    assert Instant().process_bind_param(None, None) is None
    assert Instant().process_result_value(None, None) is None


@pytest.mark.parametrize("name", ["", "a/b", "+", "a#", "a" * 65])
async def test_a_hostile_device_id_is_no_row(db: Database, name: str) -> None:
    """The last of the places that check it."""
    row = {"product": "p", "hardware": "h", "report_key": {}, "content_key": "", "certificate_serial": ""}
    with pytest.raises(ConflictError):
        async with db.begin() as conn:
            await conn.execute(insert(devices).values(id=name, enrolled_at=datetime.now(UTC), **row))


async def test_every_table_is_made(db: Database) -> None:
    """By opening the database; opening it again changes nothing."""
    async with db.read() as conn:
        found = set(await conn.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'")))
    assert set(metadata.tables) <= found
    again = await Database.open(db.path)
    await again.close()
    assert again.id == db.id
