"""Two live devices under one id are told from one device that had a hard life."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.model.duplicates import MAX_INSTANCES, WINDOW, Instance, Instances, heard

NOW = datetime(2026, 11, 24, tzinfo=UTC)
HOUR = timedelta(hours=1)


def tell(*reports: str, every: timedelta = HOUR, before: Instances | None = None) -> Instances:
    """Take in reports "name:session[.seq][@boot]", one each ``every``."""
    known = before or Instances()
    for number, text in enumerate(reports):
        who, _, boot = text.partition("@")
        name, _, order = who.partition(":")
        session, _, seq = order.partition(".")
        known = heard(known, Instance(name, boot, int(session), int(seq or 1)), NOW + number * every)
    return known


@pytest.mark.parametrize(
    "reports",
    [
        pytest.param(("a:1", "b:1", "a:2", "b:2"), id="copies that start with the same session"),
        pytest.param(("a:50", "b:10", "a:51", "b:11", "a:52"), id="a copy that is far behind"),
        pytest.param(("a:1", "b:2", "a:1.2", "c:3", "a:1.3"), id="a copy that pretends to restart each time"),
        pytest.param(("a:1", "b:1", "c:1", "a:2", "b:2", "c:2"), id="three"),
    ],
)
def test_who_takes_turns_is_two(reports: tuple[str, ...]) -> None:
    """The second return of an instance that another one had followed."""
    assert tell(*reports).are_two
    assert not tell(*reports[:3]).are_two


@pytest.mark.parametrize(
    "reports",
    [
        pytest.param(("a:1", "b:2", "c:3", "d:4"), id="restarts"),
        pytest.param(("a:9", "b:2", "c:3"), id="a backup that was restored twice"),
        pytest.param(("a:9", "b:1", "b:2"), id="a factory reset"),
        pytest.param(tuple(f"a:{n}" for n in range(1, 200)), id="a storm of connections"),
        pytest.param(("a:1", "a:1", "a:1.2", "a:1"), id="duplicates of QoS 1"),
        pytest.param(("a:1", "a:2", "b:3", "a:2", "a:1", "b:4", "a:2", "b:5"), id="a broker that replays"),
        pytest.param(("a:1", "b:2", "a:1.2"), id="a machine set back to a snapshot of its memory, once"),
        pytest.param(("a:1", "a:2", "b:3", "a:1.9", "a:2.1", "b:4"), id="and what it repeats is no news"),
    ],
)
def test_who_does_not_is_one(reports: tuple[str, ...]) -> None:
    """None of it is a second live device."""
    assert not tell(*reports).are_two


def test_returns_that_lie_far_apart_are_not_one_story() -> None:
    """A snapshot restored now and another a day later."""
    assert not tell("a:1", "b:1", "a:2", "b:2", every=WINDOW + HOUR).are_two


def test_no_clock_of_a_device_plays_a_part_and_ours_may_go_back() -> None:
    """The orchestrator's clock set back in between hides nobody."""
    assert tell("a:1", "b:1", "a:2", "b:2", every=-HOUR).are_two


def test_more_copies_than_are_remembered_are_found_too() -> None:
    """In any order but the one worst for us some pair returns; and the memory has a bound."""
    rounds = [f"i{(n * n) % 23}:{n + 1}" for n in range(200)]
    known = tell(*rounds, every=timedelta(seconds=1))
    assert known.are_two
    assert len(known.known) <= MAX_INSTANCES


def test_machines_are_told_by_their_boots() -> None:
    """For the operator: two machines, or two agents on one."""
    assert tell("a:1@x", "b:1@y", "a:2@x", "b:2@y").are_on_two_machines
    assert not tell("a:1@x", "b:1@x", "a:2@x", "b:2@x").are_on_two_machines


def test_what_is_kept_reads_back() -> None:
    """Through JSON and back; nothing known is {}."""
    known = tell("a:1", "b:1", "a:2")
    assert Instances.from_json(known.to_json()) == known
    assert Instances.from_json({}) == Instances()
