"""What kind of failure an assignment came to: the classes that halt rules and retries name.

A failure has an outcome (how it ended) and a cause (what went wrong): a new version that was not healthy and was taken
back is ``health`` as well as ``rolled_back``. A rule that names both counts the device once.
"""

from collections.abc import Collection
from enum import StrEnum

from protocol.errors import ErrorCode
from protocol.states import FAILURES, State


class FailureClass(StrEnum):
    """What a rule or a retry may name."""

    DOWNLOAD = "download"
    VERIFY = "verify"
    INSTALL = "install"
    HEALTH = "health"
    ROLLED_BACK = "rolled_back"
    TIMED_OUT = "timed_out"
    SILENT = "silent_after_activation"
    DECLINED = "declined"


NO_FAILURE = frozenset({FailureClass.DECLINED})
"""Not among the failures unless a rule says so."""
DEFAULT_CLASSES = frozenset(FailureClass) - NO_FAILURE
RETRIABLE = DEFAULT_CLASSES - {FailureClass.SILENT}
"""A device that is silent cannot be asked to try again."""

_CAUSES = {
    ErrorCode.CHUNK: FailureClass.DOWNLOAD,
    ErrorCode.SLOW: FailureClass.DOWNLOAD,
    ErrorCode.SPACE: FailureClass.DOWNLOAD,
    ErrorCode.POSTINSTALL: FailureClass.INSTALL,
    ErrorCode.INSTALL: FailureClass.INSTALL,
    ErrorCode.HEALTH: FailureClass.HEALTH,
    ErrorCode.TIMEOUT: FailureClass.TIMED_OUT,
}
"""What is not here is something that the device did not accept: ``verify``."""

TIMED_OUT = "timed_out"
"""An assignment's state: it took too long before it began to install, and its offer was closed."""
KEY = "failed:"
"""Counters of failures are ``failed:OUTCOME:CAUSE``; provisional ones have the outcome ``verdict``."""
VERDICT = "verdict"


def cause_of(code: str | None, state: str) -> FailureClass:
    """What went wrong, from the code of a device's report; a failure without a code is by how it ended."""
    if state == TIMED_OUT:
        return FailureClass.TIMED_OUT
    if code is None:
        return FailureClass.ROLLED_BACK if state == State.ROLLED_BACK else FailureClass.INSTALL
    return _CAUSES.get(ErrorCode(code), FailureClass.VERIFY)


def classes_of(state: str, code: str | None) -> frozenset[FailureClass]:
    """Every class that a failed assignment belongs to."""
    found = {cause_of(code, state)}
    if state in (State.ROLLED_BACK, State.INCONSISTENT):
        found.add(FailureClass.ROLLED_BACK)
    return frozenset(found)


def failure_key(state: str, code: str | None) -> str:
    """The counter of a failed assignment."""
    return f"{KEY}{state}:{cause_of(code, state)}"


def verdict_key(verdict: str) -> str:
    """The counter of one that is judged for want of an outcome: it took too long, or fell silent."""
    return f"{KEY}{VERDICT}:{verdict}"


def is_of(key: str, classes: Collection[FailureClass]) -> bool:
    """Whether a counter ``failed:OUTCOME:CAUSE`` belongs to one of the classes."""
    _, outcome, cause = key.split(":")
    if cause in classes:
        return True
    return FailureClass.ROLLED_BACK in classes and outcome in (State.ROLLED_BACK, State.INCONSISTENT)


FAILED_STATES = frozenset({*(state.value for state in FAILURES), TIMED_OUT})
"""Ended badly; each is counted by its failure key too."""
