"""Errors of the orchestrator and the publisher, each with the exit code it ends a command with.

FlagshipError
└── OperationError         a command cannot be carried out; one sentence for a person
    ├── UsageError         2  the command's words do not make sense
    ├── NotFoundError      3  what was named does not exist
    ├── NotAllowedError    4  the token or key does not permit it
    ├── ConflictError      5  the state of things does not allow it now
    │   └── LostLeadError     another orchestrator writes this database now
    ├── HaltedError        6  a rollout is halted or failed
    └── UnreachableError   9  serve, a broker or a program does not answer
        └── SignerAwayError   the signer's process does not answer; what was asked is asked again
            └── SignerNewError  it was started anew, and nobody has compared numbers with it yet
"""

from protocol.errors import FlagshipError


class OperationError(FlagshipError):
    """A command cannot be carried out."""

    exit_code = 1


class UsageError(OperationError):
    """The command's words do not make sense."""

    exit_code = 2


class NotFoundError(OperationError):
    """What was named does not exist."""

    exit_code = 3


class NotAllowedError(OperationError):
    """The token or key does not permit it."""

    exit_code = 4


class ConflictError(OperationError):
    """The state of things does not allow it now."""

    exit_code = 5


class LostLeadError(ConflictError):
    """Another orchestrator writes this database now."""


class HaltedError(OperationError):
    """A rollout is halted or failed."""

    exit_code = 6


class WaitingError(OperationError):
    """A person must act first."""

    exit_code = 7


class TimedOutError(OperationError):
    """It did not come to pass in the time that was given."""

    exit_code = 8


class UnreachableError(OperationError):
    """Serve, a broker or a program does not answer."""

    exit_code = 9


class SignerAwayError(UnreachableError):
    """The signer's process does not answer; what was asked is asked again."""


class SignerNewError(SignerAwayError):
    """The signer's process was started anew, and nobody has compared numbers with it yet."""
