"""What the machine asks for. Every effect is safe to repeat; the journal is saved before it runs."""

from enum import StrEnum
from typing import Protocol

from device_client.agent.journal import Update


class Effect(StrEnum):
    """One thing to do; the update that was saved with it says on what."""

    EVALUATE = "evaluate"  # check the release against the offline keys
    JUDGE_GATES = "judge gates"  # of update.phase
    FETCH = "fetch"
    STOP_FETCHING = "stop fetching"
    INSTALL = "install"
    ACTIVATE = "activate"
    CHECK_HEALTH = "check health"
    COMMIT = "commit"
    ROLL_BACK = "roll back"
    REPORT_STATE = "report state"  # signed, repeated until heard
    REPORT_READINESS = "report readiness"  # signed, repeated until heard
    CLEAN_UP = "clean up"  # staged bytes and what no longer serves as a way back
    FORGET = "forget"  # the outcome was heard: idle again


class Performer(Protocol):
    """Who carries effects out; every result comes back as an event through ``Runner.post``."""

    def start(self, effect: Effect, update: Update) -> None:
        """Begin an effect without waiting for it."""
        ...

    def runs_offered(self, update: Update) -> bool:
        """Whether the offered release is the active one. Blocking."""
        ...

    def begin_idle(self) -> None:
        """No update is open: what is on trial, or staged, has lost its journal and is nobody's. Blocking."""
        ...
