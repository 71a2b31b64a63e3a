"""What the API shows of rows: plain JSON, no key, no token."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from orchestrator.errors import OperationError
from orchestrator.model.assignment import Assignment
from orchestrator.model.audit import AuditEntry
from orchestrator.model.device import Device
from orchestrator.model.rollout import Rollout, Stage
from protocol.clock import rfc3339
from protocol.status_messages import RuleFigure

_UPDATE = ("rollout", "stage", "attempt", "state", "ready", "reasons", "code", "detail", "percent", "bytes_fetched")


def device_view(device: Device) -> dict[str, Any]:
    """One device."""
    return plain({**asdict(device), "silent_since": device.silent_since})


def update_view(assignment: Assignment) -> dict[str, Any]:
    """One device's place in one rollout."""
    row = assignment.to_row()
    return plain({name: row[name] for name in (*_UPDATE, "running_version", "resumed", "log", "updated_at")})


def rollout_view(rollout: Rollout) -> dict[str, Any]:
    """One rollout in a list."""
    return plain(
        {
            "id": rollout.id,
            "release": rollout.release,
            "state": rollout.state.value,
            "reason": rollout.reason,
            "created_at": rollout.created_at,
            "started_at": rollout.started_at,
            "ended_at": rollout.ended_at,
            "offers_made": rollout.offers_made,
            "version": rollout.version,
            "weight": rollout.spec.weight,
            "emergency": rollout.spec.emergency,
            "submitted_by": rollout.submitted_by,
            "approved_by": rollout.approved_by,
        }
    )


def whole_rollout_view(
    rollout: Rollout, stages: Sequence[Stage], rules: Sequence[tuple[int, RuleFigure]] = ()
) -> dict[str, Any]:
    """One rollout with its stages, its plan, and how its rules stand."""
    shown = [
        plain(
            {
                "name": stage.name,
                "state": stage.state.value,
                "members": stage.members,
                "opened_at": stage.opened_at,
                "soaking_since": stage.soaking_since,
                "passed_at": stage.passed_at,
            }
        )
        for stage in stages
    ]
    names = {stage.position: stage.name for stage in stages}
    return {
        **rollout_view(rollout),
        "stages": shown,
        "rules": [{"stage": names[at], **figure.model_dump(mode="json", exclude_none=True)} for at, figure in rules],
        "spec": rollout.spec.model_dump(mode="json", exclude_none=True),
    }


def event_view(event: dict[str, Any]) -> dict[str, Any]:
    """One event."""
    return plain(event)


def audit_view(entry: AuditEntry) -> dict[str, Any]:
    """One entry of the audit log in a list."""
    return plain({name: value for name, value in asdict(entry).items() if name != "body"})


def whole_audit_view(entry: AuditEntry) -> dict[str, Any]:
    """One entry with its figures."""
    try:
        figures = entry.figures()
    except ValueError as error:
        raise OperationError(f"audit entry {entry.id}: {error}; run 'flagship audit verify'") from error
    return {**audit_view(entry), "figures": figures}


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON: instants as RFC 3339."""
    return {name: rfc3339(value) if isinstance(value, datetime) else value for name, value in row.items()}
