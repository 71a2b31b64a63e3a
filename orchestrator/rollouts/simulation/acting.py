"""What a modelled device does next: it is told something, does its step, and says so when it has a link."""

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from orchestrator.model.assignment import PENDING, Assignment
from orchestrator.model.failure import FailureClass
from orchestrator.rollouts.simulation.devices import OF_FAILURE, Modelled, Nature, Says, Step
from orchestrator.rollouts.simulation.habits import Habits

GRANT_S = 900.0
"""How long an activate grant lasts on a device; what ``serve`` gives by default."""
SILENT_AFTER_S = 2700.0
"""How long nothing is heard of a device until it counts as silent; what ``serve`` waits by default."""


class Happens(IntEnum):
    """Kinds of events."""

    HEARD = 0
    NOTICED_OFFER = 1
    NOTICED_GRANT = 2
    FETCHED = 3
    INSTALLED = 4
    VERIFIED = 5
    ASKS_AGAIN = 6
    SILENT = 7
    PROMOTED = 8
    NOTICED_ABORT = 9


class Event(NamedTuple):
    """Something that happens to a device at its time, in one attempt."""

    what: Happens
    device: str
    attempt: int = 1
    says: Says = Says.NOTICES
    seq: int = 0


Timed = Iterator[tuple[float, Event]]
"""(virtual seconds, event)."""


class Acts:
    """The agent, in outline."""

    def __init__(self, nature: Nature, habits: Habits, *, image_bytes: int) -> None:
        self._nature, self._habits, self._image_bytes = nature, habits, image_bytes

    def announced(self, device: Modelled, at_s: float) -> Timed:
        """Answer the announcement: ready, or not yet and later."""
        nature = self._nature
        at_s = nature.online_at(device, at_s + nature.after(self._habits.react_s))
        if nature.random.random() < self._habits.unready:
            yield from self._say(device, Says.NOT_READY, 1, at_s)
            at_s = nature.online_at(device, at_s + nature.after(self._habits.unready_s))
        yield from self._say(device, Says.READY, 1, at_s)

    def told(self, device: Modelled, was: Assignment, row: Assignment, at_s: float) -> Timed:
        """What the engine wrote reaches it when it has a link."""
        offered = row.state == "offered" and (was.state, was.attempt) != (row.state, row.attempt)
        granted = row.grant == "activate" and (was.grant, was.grant_until) != (row.grant, row.grant_until)
        if not (offered or granted):
            return
        noticed_s = self._nature.online_at(device, at_s + 0.5)
        what = Happens.NOTICED_OFFER if offered else Happens.NOTICED_GRANT
        if granted and noticed_s - at_s >= GRANT_S:
            what = Happens.ASKS_AGAIN
        yield noticed_s, Event(what, device.name, row.attempt)

    def aborted(self, device: Modelled, row: Assignment, at_s: float) -> Timed:
        """Who has an offer hears of the abort when it has a link."""
        if row.offered_at is not None and not row.is_terminal:
            yield self._nature.online_at(device, at_s + 0.5), Event(Happens.NOTICED_ABORT, device.name, row.attempt)

    def next(self, device: Modelled, row: Assignment, event: Event, at_s: float) -> Timed:
        """One step further; a device whose offer was closed or replaced leaves off."""
        gone = row.is_terminal or row.state == PENDING or row.grant == "closed" or row.attempt != event.attempt
        if gone and device.step is not Step.CHANGING:
            device.step = Step.DONE
            return
        if device.step is Step.DONE and event.what not in (Happens.NOTICED_OFFER, Happens.NOTICED_ABORT):
            return
        match event.what:
            case Happens.NOTICED_ABORT:
                yield from self._cancel(device, event.attempt, at_s)
            case Happens.NOTICED_OFFER:
                yield from self._download(device, event.attempt, at_s)
            case Happens.FETCHED:
                yield from self._fetched(device, event.attempt, at_s)
            case Happens.ASKS_AGAIN:
                yield from self._say(device, Says.ASKS, event.attempt, self._nature.online_at(device, at_s))
            case Happens.NOTICED_GRANT:
                yield from self._install(device, event.attempt, at_s)
            case Happens.INSTALLED:
                yield from self._installed(device, event.attempt, at_s)
            case Happens.VERIFIED:
                yield from self._end(device, event.attempt, at_s)

    def _download(self, device: Modelled, attempt: int, at_s: float) -> Timed:
        device.step, device.attempt, device.fate = Step.DOWNLOADING, attempt, self._nature.fate()
        if device.fate in (FailureClass.VERIFY, FailureClass.DECLINED):
            yield from self._say(device, OF_FAILURE[device.fate], attempt, at_s)
            return
        yield from self._say(device, Says.DOWNLOADS, attempt, at_s)
        if device.fate is FailureClass.DOWNLOAD:
            part = self._image_bytes * self._nature.random.random()
            at_s = self._nature.fetched_at(device, at_s, part)
            yield from self._say(device, Says.FAILED_DOWNLOAD, attempt, at_s)
            return
        yield self._nature.fetched_at(device, at_s, self._image_bytes), Event(Happens.FETCHED, device.name, attempt)

    def _cancel(self, device: Modelled, attempt: int, at_s: float) -> Timed:
        """From installing on it goes on to its end; what is rolled back then is not modelled."""
        if device.step is not Step.CHANGING and (device.step, device.attempt) != (Step.DONE, attempt):
            device.step, device.attempt = Step.DONE, attempt
            yield from self._say(device, Says.CANCELLED, attempt, at_s)

    def _fetched(self, device: Modelled, attempt: int, at_s: float) -> Timed:
        device.step = Step.FETCHED
        free_s = self._nature.installable_at(device, at_s)
        yield from self._say(device, Says.FETCHED if free_s == at_s else Says.FETCHED_WAITS, attempt, at_s)
        if free_s != at_s:
            yield free_s, Event(Happens.ASKS_AGAIN, device.name, attempt)

    def _install(self, device: Modelled, attempt: int, at_s: float) -> Timed:
        if device.step is not Step.FETCHED:
            return  # it is at it already: a question that was heard twice was answered twice
        free_s = self._nature.installable_at(device, at_s)
        if free_s != at_s:  # its gates shut meanwhile
            yield from self._say(device, Says.FETCHED_WAITS, attempt, at_s)
            yield free_s, Event(Happens.ASKS_AGAIN, device.name, attempt)
            return
        device.step = Step.CHANGING
        yield from self._say(device, Says.INSTALLS, attempt, at_s)
        done_s = at_s + self._nature.after(self._habits.install_s)
        yield done_s, Event(Happens.INSTALLED, device.name, attempt)

    def _installed(self, device: Modelled, attempt: int, at_s: float) -> Timed:
        if device.fate is FailureClass.SILENT:
            yield at_s + SILENT_AFTER_S, Event(Happens.SILENT, device.name, attempt)
            return
        if device.fate is FailureClass.INSTALL:
            device.step = Step.DONE
            yield from self._say(device, Says.FAILED_INSTALL, attempt, at_s)
            return
        yield from self._say(device, Says.VERIFIES, attempt, at_s)
        yield at_s + self._nature.after(self._habits.verify_s), Event(Happens.VERIFIED, device.name, attempt)

    def _end(self, device: Modelled, attempt: int, at_s: float) -> Timed:
        device.step = Step.DONE
        says = Says.FAILED_HEALTH if device.fate is FailureClass.HEALTH else Says.SUCCEEDED
        yield from self._say(device, says, attempt, at_s)

    def _say(self, device: Modelled, says: Says, attempt: int, at_s: float) -> Timed:
        """It is heard once; now and then twice."""
        nature = self._nature
        device.said += 1
        heard_s, event = nature.heard_at(device, at_s), Event(Happens.HEARD, device.name, attempt, says, device.said)
        yield heard_s, event
        if nature.random.random() < self._habits.repeated:
            yield heard_s + nature.after(self._habits.react_s), event
