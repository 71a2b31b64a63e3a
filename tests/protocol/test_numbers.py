"""Numbers from outside fit where they are stored."""

import sqlite3
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from protocol.manifest import ReleaseInfo
from protocol.numbers import MAX_COUNTER, MAX_NUMBER, Count, Counter, Ordinal
from protocol.reports import Presence, Progress, StateReport
from tests.protocol.test_reports import STATE


@pytest.mark.parametrize(
    ("kind", "least", "most"), [(Count, 0, MAX_NUMBER), (Ordinal, 1, MAX_NUMBER), (Counter, 0, MAX_COUNTER)]
)
def test_a_number_has_two_ends(kind: Any, least: int, most: int) -> None:
    """Both ends are in, one beyond either is out."""
    adapter = TypeAdapter(kind)
    assert [adapter.validate_python(number) for number in (least, most)] == [least, most]
    for beyond in (least - 1, most + 1):
        with pytest.raises(ValidationError):
            adapter.validate_python(beyond)


def test_the_largest_number_is_stored_exactly() -> None:
    """SQLite and JSON readers that only have doubles give back what came in."""
    with sqlite3.connect(":memory:") as database:
        assert database.execute("SELECT ?", (MAX_NUMBER,)).fetchone() == (MAX_NUMBER,)
    database.close()
    assert int(float(MAX_NUMBER)) == MAX_NUMBER


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        pytest.param(StateReport, {**STATE, "session": 10**30}, id="session"),
        pytest.param(StateReport, {**STATE, "seq": 2**63}, id="seq"),
        pytest.param(StateReport, {**STATE, "attempt": 2**63}, id="attempt"),
        pytest.param(StateReport, {**STATE, "bytes_fetched": 2**63}, id="bytes"),
        pytest.param(Presence, {"session": 2**63, "online": True}, id="presence"),
        pytest.param(
            Progress,
            {"rollout": "r1", "state": "downloading", "percent": 1, "bytes_fetched": 2**63},
            id="progress",
        ),
    ],
)
def test_a_report_with_a_number_that_no_database_holds_is_refused(
    model: type[BaseModel], fields: dict[str, Any]
) -> None:
    """One device's valid JSON must not end the batch that others' reports are in."""
    with pytest.raises(ValidationError, match="less than or equal to"):
        model.model_validate(fields)


def test_a_release_cannot_take_the_last_counter() -> None:
    """A counter is for ever on every device that committed it; a slip of the finger stays within bounds."""
    info = {
        "product": "gateway", "version": "1.0.0", "component": "app", "hardware": ["rev-a"], "space_bytes": 1,
        "pieces": ["ab" * 32], "chunk_count": 1,
    }  # fmt: skip
    assert ReleaseInfo.model_validate({**info, "counter": MAX_COUNTER}).counter == MAX_COUNTER
    with pytest.raises(ValidationError, match="counter"):
        ReleaseInfo.model_validate({**info, "counter": 99999999999999999999999})
