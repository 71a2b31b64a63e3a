"""The audit log's chain, on entries in memory."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.audit import (
    FIRST,
    MAX_BODY_BYTES,
    AuditEntry,
    chain_hash,
    check_chain,
    encode_body,
    encode_entry,
    pack,
    unpack,
)

NOW = datetime(2026, 11, 25, 12, 0, 0, 123456, tzinfo=UTC)


def entry(number: int, former: str = FIRST, **changes: Any) -> AuditEntry:
    """An entry that follows from the one with hash ``former``."""
    fields: dict[str, Any] = {
        "id": number, "at": NOW, "kind": "order", "actor": "operator", "rollout": "r-1", "device": "", "cause": "why",
        "epoch": 1, "correlation": "c", "body": encode_body({"n": number}), **changes,
    }  # fmt: skip
    return AuditEntry(**fields, hash=chain_hash(former, encode_entry(AuditEntry(**fields, hash=""))))


def chain(length: int) -> list[AuditEntry]:
    """A whole log."""
    found: list[AuditEntry] = []
    for number in range(1, length + 1):
        found.append(entry(number, found[-1].hash if found else FIRST))
    return found


def test_the_hash_is_what_the_reference_says() -> None:
    """A person recomputes it with sha256 and a JSON encoder alone; an instant in another zone is the same one."""
    made = entry(1, at=NOW.astimezone(timezone(timedelta(hours=2))))
    fields = json.dumps(
        [1, "2026-11-25T12:00:00.123456Z", "order", "operator", "r-1", "", "why", 1, "c"], separators=(",", ":")
    )
    assert made.hash == hashlib.sha256(f'{"0" * 64}\n{fields}\n{{"n":1}}'.encode()).hexdigest()


def test_a_whole_log_has_no_problem() -> None:
    """Nor has an empty one."""
    assert list(check_chain(chain(5))) == []
    assert list(check_chain([])) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("at", NOW + timedelta(microseconds=1)), ("kind", "moves"), ("actor", "eve"), ("rollout", "r-2"),
        ("device", "d1"), ("cause", "other"), ("epoch", 2), ("correlation", "d"), ("body", b'{"n":4}'), ("hash", FIRST),
    ],
)  # fmt: skip
def test_every_field_that_is_changed_shows(name: str, value: Any) -> None:
    """At the entry that was changed."""
    log = chain(5)
    log[2] = replace(log[2], **{name: value})
    assert 3 in {problem.entry for problem in check_chain(log)}


def test_a_missing_entry_shows() -> None:
    """At the one behind it, with its number; the first one, too."""
    log = chain(5)
    assert [(p.entry, "missing 3;" in p.text) for p in check_chain([*log[:2], *log[3:]])] == [(4, True)]
    assert [(p.entry, "missing 1 to 2;" in p.text) for p in check_chain(log[2:])] == [(3, True)]


@given(st.integers(0, 4), st.integers(0, 4))
def test_swapped_entries_show(one: int, two: int) -> None:
    """Whatever their numbers are then."""
    log = chain(5)
    log[one], log[two] = replace(log[two], id=log[one].id), replace(log[one], id=log[two].id)
    assert bool(list(check_chain(log))) is (one != two)


def test_an_epoch_that_falls_shows() -> None:
    """Though the chain is whole: an orchestrator wrote that had been replaced."""
    first = entry(1, epoch=3)
    assert [p.entry for p in check_chain([first, entry(2, first.hash, epoch=2)])] == [2]


@pytest.mark.parametrize(
    "packed", [b"", b"plain", pack(b"{}")[:-1], pack(b"{}") + b"x", pack(b" " * (MAX_BODY_BYTES + 1))]
)
def test_what_does_not_unpack_exactly_is_refused(packed: bytes) -> None:
    """Nothing stands behind a body unseen, and none fills the memory."""
    with pytest.raises(ValueError, match="body"):
        unpack(packed)


def test_a_body_comes_back() -> None:
    """Byte by byte; one that is too large is refused when it is written."""
    body = encode_body({"b": 1, "a": "é"})
    assert body == b'{"a":"\\u00e9","b":1}' and unpack(pack(body)) == body
    with pytest.raises(ValueError, match="split it"):
        encode_body({"a": "x" * MAX_BODY_BYTES})


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000])
def test_figures_are_an_object(body: bytes) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError):  # noqa: PT011 - whichever
        replace(entry(1), body=body).figures()
