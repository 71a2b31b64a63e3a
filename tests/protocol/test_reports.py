"""What a device says: bounds, order, outcomes."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from protocol.envelopes import decode, encode
from protocol.errors import ErrorCode
from protocol.reports import (
    Inventory,
    Presence,
    Progress,
    Readiness,
    Reason,
    Refusal,
    StateReport,
    Want,
    outcome_digest,
)
from protocol.states import OUTCOMES, State

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
REPORT: dict[str, Any] = {"fleet": "north", "issued": NOW, "device": "dev1", "session": 3, "seq": 4}
STATE: dict[str, Any] = {**REPORT, "rollout": "r1", "attempt": 1, "nonce": "n" * 8, "state": "fetched"}
READINESS: dict[str, Any] = {**REPORT, "rollout": "r1", "nonce": "n" * 8, "phase": "download", "ready": True}
INVENTORY: dict[str, Any] = {**REPORT, "product": "gateway", "hardware": "rev-a", "agent": "0.1.0"}
REASON = {"gate": "power", "code": "battery_low", "detail": "12 %, needs 40 %", "retry_after_s": 60}


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (StateReport, {**STATE, "state": "failed", "code": "E_HEALTH", "log": "x", "reasons": [REASON]}),
        (Readiness, {**READINESS, "ready": False, "reasons": [REASON]}),
        (Inventory, {**INVENTORY, "components": {"app": "1.0.0"}, "labels": {"site": "Oslo, north"}}),
        (Presence, {"session": 1, "online": False}),
        (Progress, {"rollout": "r1", "state": "downloading", "percent": 12.5}),
        (Want, {"rollout": "r1", "cids": ["ab" * 32]}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_report_reads_back(model: type[BaseModel], fields: dict[str, Any]) -> None:
    """What is encoded is decoded to the same report."""
    report = model(**fields)
    assert decode(encode(report), model) == report


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (StateReport, {**STATE, "state": "exploded"}),
        (StateReport, {**STATE, "code": "E_OTHER"}),
        (StateReport, {**STATE, "log": "x" * 10_241}),
        (StateReport, {**STATE, "detail": "x" * 501}),
        (StateReport, {**STATE, "attempt": -1}),
        (StateReport, {**STATE, "session": 0}),
        (StateReport, {**STATE, "seq": 0}),
        (StateReport, {**STATE, "running_version": "../.."}),
        (StateReport, {**STATE, "v": "2.0"}),
        (StateReport, {**STATE, "type": "readiness"}),
        (Readiness, {**READINESS, "reasons": [REASON] * 33}),
        (Readiness, {**READINESS, "reasons": [{**REASON, "gate": "Power!"}]}),
        (Readiness, {**READINESS, "reasons": [{**REASON, "retry_after_s": -1}]}),
        (Readiness, {**READINESS, "phase": "later"}),
        (Inventory, {**INVENTORY, "device": "#"}),
        (Inventory, {**INVENTORY, "labels": {"a/b": "x"}}),
        (Inventory, {**INVENTORY, "labels": {"site": "x" * 65}}),
        (Inventory, {**INVENTORY, "components": {"app": "a b"}}),
        (Progress, {"rollout": "r1", "state": "downloading", "percent": 101}),
        (Progress, {"rollout": "r1", "state": "downloading", "percent": "nan"}),
        (Want, {"rollout": "r1", "cids": []}),
        (Want, {"rollout": "r1", "cids": ["ab" * 32] * 65}),
        (Want, {"rollout": "r1", "cids": ["+"]}),
        (Presence, {"session": 0, "online": True}),
        (Presence, {"session": 2**63, "online": True}),
        (Refusal, {"code": "E_FORMAT", "count": 2**63, "last": NOW}),
        (StateReport, {**STATE, "session": 2**63}),
        (StateReport, {**STATE, "seq": 2**63}),
        (StateReport, {**STATE, "attempt": 2**63}),
        (StateReport, {**STATE, "bytes_fetched": 2**63}),
        (Progress, {"rollout": "r1", "state": "downloading", "percent": 1, "bytes_fetched": 2**63}),
        (Progress, {"rollout": "r1", "state": "downloading", "percent": 1, "bytes_total": 2**63}),
        (Readiness, {**READINESS, "reasons": [{**REASON, "retry_after_s": float("inf")}]}),
    ],
)
def test_a_report_out_of_bounds_is_refused(model: type[BaseModel], fields: dict[str, Any]) -> None:
    """No device makes the orchestrator store what is unbounded or means something else elsewhere."""
    with pytest.raises(ValidationError):
        model(**fields)


@pytest.mark.parametrize("state", State)
def test_outcomes_are_the_terminal_states(state: State) -> None:
    """A report is an outcome exactly when its state is terminal."""
    assert StateReport(**{**STATE, "state": state}).is_outcome is (state in OUTCOMES)


def test_reports_are_ordered_by_session_then_seq() -> None:
    """A restart raises the session, so its first report exceeds the last one before it."""
    before = StateReport(**{**STATE, "session": 3, "seq": 999})
    after = StateReport(**{**STATE, "session": 4, "seq": 1})
    assert after.order > before.order


def test_an_outcome_is_named_by_its_signed_bytes() -> None:
    """The digest is of the payload, so that no other report can be taken for the one that was heard."""
    payload = encode(StateReport(**{**STATE, "state": "failed", "code": ErrorCode.HEALTH}))
    assert outcome_digest(payload) == hashlib.sha256(payload).hexdigest()


def test_a_reason_needs_a_gate_and_a_code() -> None:
    """Programs read the code, people the detail."""
    assert Reason(gate="power", code="battery_low").detail == ""
    with pytest.raises(ValidationError):
        Reason.model_validate({"gate": "power"})
