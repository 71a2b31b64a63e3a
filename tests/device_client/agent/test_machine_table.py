"""The literal table against the design's picture: no way around a gate, no way back, no outcome with a row."""

from device_client.agent import events as ev
from device_client.agent.effects import Effect
from device_client.agent.machine_table import (
    ACTIVATING,
    COMMITTING,
    DOWNLOADING,
    ENTER,
    EVALUATING,
    FETCHED,
    INSTALLED,
    INSTALLING,
    REPORTED,
    ROLLING_BACK,
    TABLE,
    VERIFYING,
    WAIT_ACTIVATE,
    WAIT_DOWNLOAD,
    WAIT_INSTALL,
    Place,
)
from protocol.states import FAILURES, OUTCOMES, State

WAY: tuple[Place, ...] = (
    EVALUATING, WAIT_DOWNLOAD, DOWNLOADING, FETCHED, WAIT_INSTALL, INSTALLING, INSTALLED, WAIT_ACTIVATE, ACTIVATING,
    VERIFYING, COMMITTING,
)  # fmt: skip
UNTOUCHED = WAY[:5]
BACKWARDS = {(DOWNLOADING, ev.LeaseEnded), (INSTALLING, ev.TurnedAway), (ACTIVATING, ev.TurnedAway)}
"""Only a lease that ends in mid-transfer, and gates that shut at the last moment, lead back on the way there."""
OPEN = (ev.GatesOpen, ev.GatesOpenOffline)


def _into(place: Place) -> set[tuple[Place, type]]:
    return {row for row, to in TABLE.items() if to == place}


def test_the_way_leads_forward() -> None:
    """Every row that stays on the way goes on or stays; only what stands there leads back."""
    back = {row for row, to in TABLE.items() if row[0] in WAY and to in WAY and WAY.index(to) < WAY.index(row[0])}
    assert back == BACKWARDS


def test_what_changes_the_device_has_one_door() -> None:
    """Installing, activating and committing are entered as the design says, and from nowhere else."""
    asked = {kind: {place for place, of in _into(INSTALLING) if of is kind} for kind in OPEN}
    assert asked == {ev.GatesOpen: {WAIT_INSTALL}, ev.GatesOpenOffline: {FETCHED, WAIT_INSTALL}}
    assert _into(ACTIVATING) == {(place, kind) for place in (INSTALLED, WAIT_ACTIVATE) for kind in OPEN}
    assert {kind for _, kind in _into(INSTALLING) | _into(ACTIVATING)} == set(OPEN)
    assert _into(VERIFYING) == {(ACTIVATING, ev.Activated), (VERIFYING, ev.HealthPassed)}
    assert _into(COMMITTING) == set(), "only machine._verified leads there"
    assert _into((State.SUCCEEDED, None)) == {(COMMITTING, ev.Committed), (EVALUATING, ev.AlreadyRuns)}


def test_from_installing_on_there_is_only_the_way_back() -> None:
    """Once the device was touched no failure ends without rolling back; before it, nothing rolls back."""
    for (place, _), to in TABLE.items():
        if place in WAY[5:] and to[0] in OUTCOMES:
            assert to[0] is State.SUCCEEDED
        if place in UNTOUCHED:
            assert to != ROLLING_BACK
    assert {to[0] for (place, _), to in TABLE.items() if place == ROLLING_BACK} == {
        State.ROLLED_BACK, State.INCONSISTENT,
    }  # fmt: skip


def test_outcomes_have_no_row() -> None:
    """Only their being heard ends them; every failure has a way into it."""
    assert not {place for place, _ in TABLE} & {(state, None) for state in OUTCOMES}
    reached = {to[0] for to in TABLE.values()}
    assert reached >= FAILURES


def test_whoever_waits_can_be_refused_declined_and_closed() -> None:
    """Every place where gates are awaited takes every answer that a gate, a person or the orchestrator may give."""
    for place in (WAIT_DOWNLOAD, FETCHED, WAIT_INSTALL, INSTALLED, WAIT_ACTIVATE):
        for kind in (*OPEN, ev.GatesShut, ev.Refused, ev.Declined, ev.WaitedTooLong, ev.Closed, ev.Superseded):
            assert (place, kind) in TABLE, f"{kind.__name__} in {place}"


def test_what_can_be_closed_can_be_superseded() -> None:
    """Another rollout's place is made wherever a rollout's end reaches; the device says which of the two it was."""
    closed = {place: to for (place, kind), to in TABLE.items() if kind is ev.Closed}
    superseded = {place: to for (place, kind), to in TABLE.items() if kind is ev.Superseded}
    cancelled, made_way = (State.CANCELLED, None), (State.SUPERSEDED, None)
    assert superseded == {place: made_way if to == cancelled else to for place, to in closed.items()}


def test_something_is_done_on_every_arrival() -> None:
    """A place without an effect would wait for ever; those that wait for a grant are judged by the tick."""
    assert set(WAY) | {ROLLING_BACK} == set(ENTER) | {WAIT_INSTALL, WAIT_ACTIVATE}
    for place in REPORTED:
        assert Effect.REPORT_STATE in ENTER[place]
