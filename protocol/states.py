"""Where one update stands on one device: the words, and what they count as.

The device's machine (``device_client/agent/machine.py``) moves between them; the orchestrator only reads them.
"""

from enum import StrEnum


class State(StrEnum):
    """Design, section 6."""

    IDLE = "idle"
    EVALUATING = "evaluating"
    WAITING = "waiting"
    DOWNLOADING = "downloading"
    FETCHED = "fetched"
    INSTALLING = "installing"
    INSTALLED = "installed"
    ACTIVATING = "activating"
    VERIFYING = "verifying"
    COMMITTING = "committing"
    ROLLING_BACK = "rolling_back"

    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    FAILED = "failed"
    DECLINED = "declined"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    ROLLED_BACK = "rolled_back"
    INCONSISTENT = "inconsistent"


class Phase(StrEnum):
    """What a gate guards."""

    DOWNLOAD = "download"
    INSTALL = "install"
    ACTIVATE = "activate"


OUTCOMES = frozenset(
    {
        State.SUCCEEDED,
        State.REJECTED,
        State.FAILED,
        State.DECLINED,
        State.CANCELLED,
        State.EXPIRED,
        State.SUPERSEDED,
        State.ROLLED_BACK,
        State.INCONSISTENT,
    }
)
"""Terminal: the device does nothing more for this attempt."""

FAILURES = frozenset({State.FAILED, State.REJECTED, State.ROLLED_BACK, State.INCONSISTENT})
"""Outcomes that a halt rule counts as failures."""

FINISHED = FAILURES | {State.SUCCEEDED}
"""Outcomes that rules are judged on. Declined, cancelled, expired and superseded are not finished."""

TOUCHED = frozenset({State.INSTALLING, State.INSTALLED, State.ACTIVATING, State.VERIFYING, State.COMMITTING})
"""From here on the device's software is being changed; an abort asks for rollback."""
