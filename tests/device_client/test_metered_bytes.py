"""The day's allowance: counted over restarts and cuts, never too little, with few writes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from device_client.metered_bytes import LEAST_AHEAD, SHARE, MeteredBytes
from protocol.clock import ManualClock

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
PER_DAY = 100 * 2**20


def opened(place: Path, clock: ManualClock, per_day: int = PER_DAY) -> MeteredBytes:
    """As after a start."""
    return MeteredBytes(place / "metered.json", per_day, clock)


async def test_no_limit_counts_nothing(tmp_path: Path) -> None:
    """Nothing is ever used up, and nothing is written."""
    free = opened(tmp_path, ManualClock(NOON), 0)
    free.spend(2**50)
    await free.keep(exactly=True)
    assert not free.is_used_up
    assert list(tmp_path.iterdir()) == []


async def test_a_day_has_its_limit_and_the_next_one_its_own(tmp_path: Path) -> None:
    """Used up at the limit; free again after midnight in UTC."""
    clock = ManualClock(NOON)
    spent = opened(tmp_path, clock)
    found = []
    for size in (PER_DAY - 1, 1):
        spent.spend(size)
        found.append(spent.is_used_up)
    assert found == [False, True]
    assert f"{PER_DAY} B of today's {PER_DAY} B" in spent.says
    for passed_s in (12 * 3600 - 1, 1):
        clock.advance(passed_s)
        found.append(spent.is_used_up)
    assert found == [False, True, True, False]


async def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    """After a stop in order the count is exact."""
    clock = ManualClock(NOON)
    first = opened(tmp_path, clock)
    first.spend(12_345)
    await first.keep()
    await first.keep(exactly=True)
    second = opened(tmp_path, clock)
    assert second.says.startswith("12345 B")


@pytest.mark.parametrize("per_day", [1000, 10**6, PER_DAY, 2**40])
async def test_a_cut_makes_no_byte_free_and_writes_are_few(tmp_path: Path, per_day: int) -> None:
    """After any window the file says at least what was spent, and little more; it was written some tens of times."""
    clock = ManualClock(NOON)
    spent, total, writes, window = opened(tmp_path, clock, per_day), 0, set(), max(1, per_day // 1000)
    ahead = max(LEAST_AHEAD, per_day // SHARE)
    while not spent.is_used_up:
        spent.spend(window)
        total += window
        await spent.keep()
        writes.add((tmp_path / "metered.json").read_bytes())
        after_a_cut = int(opened(tmp_path, clock, per_day).says.split()[0])
        assert total <= after_a_cut <= total + ahead
    assert len(writes) <= 2 * SHARE + 2


async def test_a_clock_that_goes_back_gives_nothing(tmp_path: Path) -> None:
    """What was spent on the later day stays spent, and a clock that was far ahead does not lock the device out."""
    clock = ManualClock(NOON + timedelta(days=1000))
    spent = opened(tmp_path, clock)
    spent.spend(PER_DAY)
    await spent.keep(exactly=True)
    clock.set_wall(NOON)
    assert spent.is_used_up
    assert opened(tmp_path, clock).is_used_up
    clock.set_wall(NOON + timedelta(days=1))
    assert not spent.is_used_up


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"day":"2026-11-25","spent_bytes":-1}', b"x" * 5000])
async def test_a_damaged_file_is_an_allowance_that_is_used_up(tmp_path: Path, content: bytes) -> None:
    """Until tomorrow: what costs money fails closed."""
    (tmp_path / "metered.json").write_bytes(content)
    clock = ManualClock(NOON)
    spent = opened(tmp_path, clock)
    assert spent.is_used_up
    clock.advance(86_400)
    assert not spent.is_used_up


async def test_a_disk_that_takes_nothing_does_not_stop_the_counting(tmp_path: Path) -> None:
    """It is told, and the limit holds in this run."""
    spent = MeteredBytes(tmp_path / "absent" / "metered.json", 1000, ManualClock(NOON))
    spent.spend(1000)
    await spent.keep()
    assert spent.is_used_up
