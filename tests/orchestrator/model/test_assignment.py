"""An assignment, and the counters it stands in."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.assignment import FIELDS, OFFERED, PENDING, Assignment, Work, count_deltas, count_keys, moved
from protocol.states import OUTCOMES, State

NOW = datetime(2026, 11, 24, tzinfo=UTC)
ROW = Assignment(rollout="r-1", device="d1", stage=0, place=0.5)
ROWS = st.builds(
    Assignment,
    rollout=st.just("r-1"),
    device=st.just("d1"),
    stage=st.just(0),
    place=st.just(0.5),
    state=st.sampled_from([PENDING, OFFERED, *map(str, State)]),
    ready=st.booleans(),
    asking=st.booleans(),
    offered_at=st.sampled_from([None, NOW]),
)


@pytest.mark.parametrize(
    ("row", "keys"),
    [
        (ROW, {"state:pending"}),
        (replace(ROW, ready=True), {"state:pending", "ready"}),
        (replace(ROW, state=OFFERED, ready=True, offered_at=NOW), {"state:offered", "offered"}),
        (replace(ROW, state="fetched", asking=True, offered_at=NOW), {"state:fetched", "asking", "offered"}),
        (replace(ROW, state="succeeded", offered_at=NOW), {"state:succeeded", "offered"}),
    ],
)
def test_what_a_row_counts_as(row: Assignment, keys: set[str]) -> None:
    """One state, and ready, asking and offered as they apply; only a pending device is ready."""
    assert count_keys(row) == keys


@given(ROWS, ROWS)
def test_deltas_lead_from_one_row_to_the_other(before: Assignment, after: Assignment) -> None:
    """Counting the first and adding the difference is counting the second; the way back takes it away."""
    there, back = count_deltas(before, after), count_deltas(after, before)
    counts = Counter({("r-1", 0, key): 1 for key in count_keys(before)})
    counts.update(there)
    assert {key for _, _, key in +counts} == count_keys(after)
    assert {key: -n for key, n in there.items()} == dict(back)


@pytest.mark.parametrize("changes", [{"rollout": "r-2"}, {"device": "d2"}, {"stage": 1}])
def test_a_row_keeps_its_place(changes: dict[str, str]) -> None:
    """A difference between two places would move counts between stages unseen."""
    with pytest.raises(ValueError, match="keeps its rollout, device and stage"):
        count_deltas(ROW, replace(ROW, **changes))  # type: ignore[arg-type]


@given(ROWS)
def test_a_row_is_read_as_it_was_written(row: Assignment) -> None:
    """By column name."""
    assert Assignment.from_row(row.to_row()) == row
    assert row.is_terminal is (row.state in OUTCOMES)


def test_moving_a_row_changes_what_is_named_and_nothing_else() -> None:
    """As ``dataclasses.replace`` does it, with the work that follows; the row before stays as it was."""
    values: dict[str, Any] = {name: f"of {name}" for name in FIELDS} | {
        "state": PENDING,
        "work": "",
        "work_since": None,
    }
    before = Assignment(**values)
    after = moved(before, NOW, state=OFFERED, grant="download")
    assert after == replace(before, updated_at=NOW, state=OFFERED, grant="download", work=Work.QUEUED, work_since=NOW)
    assert before == Assignment(**values)
    with pytest.raises(KeyError):
        moved(before, NOW, colour="red")
