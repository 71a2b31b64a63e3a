"""What the machine asks for. Every effect is safe to repeat; the journal is saved before it runs."""

from enum import StrEnum


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
