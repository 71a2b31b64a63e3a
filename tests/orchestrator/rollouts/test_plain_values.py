"""Values to JSON and back by their types."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from orchestrator.rollouts.plain_values import from_plain, to_plain


class Colour(StrEnum):
    RED = "red"


class Plan(BaseModel):
    name: str
    start: datetime | None = None


@dataclass(frozen=True, slots=True)
class Part:
    number: int
    share: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    colour: Colour
    at: datetime
    plan: Plan
    parts: tuple[Part, ...]
    counts: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    seen: dict[int, tuple[int, int]] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    lists: Sequence[Part] = ()
    wait: timedelta | None = None
    either: Part | Colour | None = None
    word: Literal["a", "b"] = "a"
    anything: Any = None
    added_later: bool = False


NOW = datetime(2026, 11, 25, 12, 0, 0, 5, tzinfo=UTC)
WHOLE = Whole(
    colour=Colour.RED,
    at=NOW,
    plan=Plan(name="p", start=NOW),
    parts=(Part(1), Part(2, 1.0)),
    counts={0: {"ready": 1}},
    seen={3: (1, 2)},
    names=frozenset({"b", "a"}),
    lists=[Part(3)],
    wait=timedelta(seconds=1, microseconds=7),
    either=Part(4),
    word="b",
    anything={"x": [1]},
    added_later=True,
)


def through_json(value: object) -> Any:
    """As a log keeps it."""
    return json.loads(json.dumps(to_plain(value)))


def test_everything_comes_back() -> None:
    """Nested, optional, in containers, by keys that are numbers."""
    assert from_plain(Whole, through_json(WHOLE)) == WHOLE


def test_what_is_missing_takes_its_default_and_what_is_unknown_is_left_out() -> None:
    """So that entries of earlier and of later versions are read."""
    plain = through_json(WHOLE)
    del plain["added_later"], plain["seen"]
    plain["from_the_future"] = 1
    found = from_plain(Whole, plain)
    assert found.added_later is False and found.seen == {} and found.parts == WHOLE.parts


@pytest.mark.parametrize(
    "changes",
    [
        {"colour": "green"}, {"at": 5}, {"at": "yesterday"}, {"parts": "12"}, {"parts": [{"share": 1}]},
        {"plan": {}}, {"counts": {"x": {}}}, {"counts": []}, {"either": 3}, {"seen": {"1": [1]}}, {"wait": "long"},
        {"added_later": 1}, {"parts": [{"number": True}]},
    ],
    ids=str,
)  # fmt: skip
def test_what_has_another_form_is_refused(changes: dict[str, Any]) -> None:
    """By ValueError, whatever it is."""
    with pytest.raises(ValueError):  # noqa: PT011 - whichever
        from_plain(Whole, {**through_json(WHOLE), **changes})


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_a_dataclass_is_an_object(value: object) -> None:
    """Nothing else."""
    with pytest.raises(ValueError):  # noqa: PT011 - whichever
        from_plain(Whole, value)


def test_what_has_no_json_is_refused() -> None:
    """Instead of being written as something else."""
    with pytest.raises(TypeError):
        to_plain(object())


@given(
    st.timedeltas(timedelta(0), timedelta(days=3650)), st.floats(allow_nan=False), st.datetimes(timezones=st.just(UTC))
)
def test_numbers_and_times_keep_every_digit(wait: timedelta, share: float, at: datetime) -> None:
    """A decision made again must not differ by a rounding."""
    assert from_plain(timedelta, through_json(wait)) == wait
    assert from_plain(Part, through_json(Part(1, share))) == Part(1, share)
    assert from_plain(datetime, through_json(at)) == at
