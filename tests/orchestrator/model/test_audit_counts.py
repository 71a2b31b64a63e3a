"""Counters from moves."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.assignment import Assignment, count_keys
from orchestrator.model.audit import FIRST, AuditEntry, encode_body
from orchestrator.model.audit_counts import Recount, counts_rows, differences, moves_of

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
STATES = ["pending", "offered", "succeeded", "failed", "excluded"]


def entry(kind: str, **figures: Any) -> AuditEntry:
    """An entry with this body."""
    return AuditEntry(
        id=1, at=NOW, kind=kind, actor="engine", rollout="", device="", cause="", epoch=1, correlation="",
        body=encode_body(figures), hash=FIRST,
    )  # fmt: skip


def row(device: str, **changes: Any) -> Assignment:
    """A place in r-1."""
    return Assignment(**{"rollout": "r-1", "device": device, "stage": 0, "place": 0.0, **changes})


def test_what_changes_no_counter_is_no_move() -> None:
    """Progress is not logged; a device that joins is."""
    before = row("d1")
    assert moves_of([(before, replace(before, percent=5.0, bytes_fetched=7))]) == []
    assert moves_of([(None, before)]) == [["r-1", 0, "d1", [], ["state:pending"]]]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(STATES), st.booleans()), max_size=20))
def test_counters_follow_from_moves(steps: list[tuple[int, str, bool]]) -> None:
    """Whatever happens in whatever order, the recount is the sum over the rows."""
    rows = {f"d{n}": row(f"d{n}", stage=n % 2) for n in range(4)}
    recount = Recount()
    recount.follow(entry("moves", moves=moves_of([(None, one) for one in rows.values()])))
    for number, state, asking in steps:
        before = rows[f"d{number}"]
        rows[before.device] = replace(before, state=state, asking=asking)
        recount.follow(entry("moves", moves=moves_of([(before, rows[before.device])])))
    expected: dict[int, Counter[str]] = {}
    for one in rows.values():
        expected.setdefault(one.stage, Counter()).update(count_keys(one))
    assert recount.of("r-1") == {stage: dict(keys) for stage, keys in expected.items()}


def test_a_recount_begins_anew() -> None:
    """What stands in it replaces what was before; sums of bytes and zeros are left out."""
    recount = Recount()
    recount.follow(entry("moves", moves=[["r-1", 0, "d1", [], ["state:pending"]]]))
    rows = counts_rows([("r-2", 1, "ready", 3), ("r-2", 1, "bytes:fetched", 9), ("r-2", 1, "asking", 0)])
    recount.follow(entry("recount", counts=rows))
    assert (recount.rollouts, recount.of("r-2"), recount.of("r-1")) == (["r-2"], {1: {"ready": 3}}, {})


def test_other_kinds_change_nothing() -> None:
    """A newer Flagship's too."""
    recount = Recount()
    recount.follow(entry("order", moves=[["r-1", 0, "d1", [], ["ready"]]]))
    assert recount.rollouts == []


@pytest.mark.parametrize("figures", [{"moves": 7}, {"moves": [7]}, {"moves": [["r-1"]]}])
def test_a_body_of_another_form_is_refused(figures: dict[str, Any]) -> None:
    """By a sentence instead of a crash."""
    with pytest.raises(ValueError):  # noqa: PT011 - whichever
        Recount().follow(entry("moves", **figures))


def test_differences_are_named() -> None:
    """Stage, counter and both figures; sums of bytes are not looked at."""
    found = list(differences({0: {"ready": 2}}, {0: {"ready": 3, "bytes:fetched": 1}, 1: {"asking": 1}}))
    assert found == ["stage 0, ready: the log comes to 2, found 3", "stage 1, asking: the log comes to 0, found 1"]
