"""The update machine's table: where an event leads from a place, and what is done on arrival. Literal and pure.

A place is a state and, for those that wait, the phase whose gates are awaited. What does not fit in a table is in
``machine``, which takes every step.
"""

from device_client.agent import events as ev
from device_client.agent.effects import Effect
from protocol.states import Phase, State

Place = tuple[State, Phase | None]

EVALUATING: Place = (State.EVALUATING, None)
WAIT_DOWNLOAD: Place = (State.WAITING, Phase.DOWNLOAD)
DOWNLOADING: Place = (State.DOWNLOADING, None)
FETCHED: Place = (State.FETCHED, Phase.INSTALL)
WAIT_INSTALL: Place = (State.WAITING, Phase.INSTALL)
INSTALLING: Place = (State.INSTALLING, None)
INSTALLED: Place = (State.INSTALLED, Phase.ACTIVATE)
WAIT_ACTIVATE: Place = (State.WAITING, Phase.ACTIVATE)
ACTIVATING: Place = (State.ACTIVATING, None)
VERIFYING: Place = (State.VERIFYING, None)
COMMITTING: Place = (State.COMMITTING, None)
ROLLING_BACK: Place = (State.ROLLING_BACK, None)


def _end(state: State) -> Place:
    return (state, None)


TABLE: dict[tuple[Place, type], Place] = {
    (EVALUATING, ev.Fits): WAIT_DOWNLOAD,
    (EVALUATING, ev.AlreadyRuns): _end(State.SUCCEEDED),
    (EVALUATING, ev.Refused): _end(State.REJECTED),
    (EVALUATING, ev.Failed): _end(State.FAILED),
    (EVALUATING, ev.Closed): _end(State.CANCELLED),
    (EVALUATING, ev.Superseded): _end(State.SUPERSEDED),
    (WAIT_DOWNLOAD, ev.GatesOpen): DOWNLOADING,
    (WAIT_DOWNLOAD, ev.GatesOpenOffline): DOWNLOADING,
    (WAIT_DOWNLOAD, ev.GatesShut): WAIT_DOWNLOAD,
    (WAIT_DOWNLOAD, ev.Refused): _end(State.FAILED),
    (WAIT_DOWNLOAD, ev.WaitedTooLong): _end(State.EXPIRED),
    (WAIT_DOWNLOAD, ev.Declined): _end(State.DECLINED),
    (WAIT_DOWNLOAD, ev.Closed): _end(State.CANCELLED),
    (WAIT_DOWNLOAD, ev.Superseded): _end(State.SUPERSEDED),
    (DOWNLOADING, ev.Fetched): FETCHED,
    (DOWNLOADING, ev.FetchInterrupted): DOWNLOADING,
    (DOWNLOADING, ev.LeaseEnded): WAIT_DOWNLOAD,
    (DOWNLOADING, ev.Failed): _end(State.FAILED),
    (DOWNLOADING, ev.Declined): _end(State.DECLINED),
    (DOWNLOADING, ev.Closed): _end(State.CANCELLED),
    (DOWNLOADING, ev.Superseded): _end(State.SUPERSEDED),
    (FETCHED, ev.GatesOpen): WAIT_INSTALL,
    (FETCHED, ev.GatesOpenOffline): INSTALLING,
    (FETCHED, ev.GatesShut): WAIT_INSTALL,
    (FETCHED, ev.Refused): _end(State.FAILED),
    (FETCHED, ev.Failed): _end(State.FAILED),
    (FETCHED, ev.WaitedTooLong): _end(State.EXPIRED),
    (FETCHED, ev.Declined): _end(State.DECLINED),
    (FETCHED, ev.Closed): _end(State.CANCELLED),
    (FETCHED, ev.Superseded): _end(State.SUPERSEDED),
    (WAIT_INSTALL, ev.GatesOpen): INSTALLING,  # with a live grant; see machine._open
    (WAIT_INSTALL, ev.GatesOpenOffline): INSTALLING,
    (WAIT_INSTALL, ev.GatesShut): WAIT_INSTALL,
    (WAIT_INSTALL, ev.Refused): _end(State.FAILED),
    (WAIT_INSTALL, ev.Failed): _end(State.FAILED),
    (WAIT_INSTALL, ev.WaitedTooLong): _end(State.EXPIRED),
    (WAIT_INSTALL, ev.Declined): _end(State.DECLINED),
    (WAIT_INSTALL, ev.Closed): _end(State.CANCELLED),
    (WAIT_INSTALL, ev.Superseded): _end(State.SUPERSEDED),
    (INSTALLING, ev.Installed): INSTALLED,  # unless it was closed meanwhile; see machine._by_table
    (INSTALLING, ev.TurnedAway): WAIT_INSTALL,  # unless it was closed meanwhile; see machine._turned_away
    (INSTALLING, ev.Failed): ROLLING_BACK,
    (INSTALLED, ev.GatesOpen): ACTIVATING,  # with a live grant; see machine._open
    (INSTALLED, ev.GatesOpenOffline): ACTIVATING,
    (INSTALLED, ev.GatesShut): WAIT_ACTIVATE,
    (INSTALLED, ev.Refused): ROLLING_BACK,
    (INSTALLED, ev.Failed): ROLLING_BACK,
    (INSTALLED, ev.WaitedTooLong): ROLLING_BACK,
    (INSTALLED, ev.Declined): ROLLING_BACK,
    (INSTALLED, ev.Closed): ROLLING_BACK,
    (INSTALLED, ev.Superseded): ROLLING_BACK,
    (WAIT_ACTIVATE, ev.GatesOpen): ACTIVATING,  # with a live grant; see machine._open
    (WAIT_ACTIVATE, ev.GatesOpenOffline): ACTIVATING,
    (WAIT_ACTIVATE, ev.GatesShut): WAIT_ACTIVATE,
    (WAIT_ACTIVATE, ev.Refused): ROLLING_BACK,
    (WAIT_ACTIVATE, ev.Failed): ROLLING_BACK,
    (WAIT_ACTIVATE, ev.WaitedTooLong): ROLLING_BACK,
    (WAIT_ACTIVATE, ev.Declined): ROLLING_BACK,
    (WAIT_ACTIVATE, ev.Closed): ROLLING_BACK,
    (WAIT_ACTIVATE, ev.Superseded): ROLLING_BACK,
    (ACTIVATING, ev.Activated): VERIFYING,
    (ACTIVATING, ev.TurnedAway): WAIT_ACTIVATE,  # likewise
    (ACTIVATING, ev.Failed): ROLLING_BACK,
    (VERIFYING, ev.HealthPassed): VERIFYING,  # and heard, or offline: committing; see machine._verified
    (VERIFYING, ev.Failed): ROLLING_BACK,
    (VERIFYING, ev.VerifyTimedOut): ROLLING_BACK,
    (COMMITTING, ev.Committed): _end(State.SUCCEEDED),
    (COMMITTING, ev.Failed): ROLLING_BACK,
    (ROLLING_BACK, ev.RolledBack): _end(State.ROLLED_BACK),
    (ROLLING_BACK, ev.Failed): _end(State.INCONSISTENT),
}
"""Where an event leads. Outcomes have no row: only ``Heard`` ends them."""

ENTER: dict[Place, tuple[Effect, ...]] = {
    EVALUATING: (Effect.EVALUATE,),
    WAIT_DOWNLOAD: (Effect.JUDGE_GATES,),
    DOWNLOADING: (Effect.FETCH,),
    FETCHED: (Effect.JUDGE_GATES,),
    INSTALLING: (Effect.REPORT_STATE, Effect.INSTALL),
    INSTALLED: (Effect.JUDGE_GATES,),
    ACTIVATING: (Effect.ACTIVATE,),
    VERIFYING: (Effect.REPORT_STATE, Effect.CHECK_HEALTH),
    COMMITTING: (Effect.COMMIT,),
    ROLLING_BACK: (Effect.ROLL_BACK,),
}
"""What is done on arrival."""

REPORTED = frozenset({INSTALLING, VERIFYING})
"""Places whose arrival is reported, with a new nonce."""
