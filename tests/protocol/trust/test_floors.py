"""Floors never fall, but a recovery from a fast-forward is possible."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import EnvelopeError, ErrorCode, TrustError
from protocol.trust.floors import (
    MAX_ORDERS,
    Floors,
    RoleFloor,
    bind_director,
    higher,
    is_newer,
    is_quarantined,
    quarantine,
    raise_clock,
    raise_counter,
    raise_order,
    raise_roles,
    reset_counters,
    unbind_clock,
)
from protocol.trust.trusted import CounterReset, RoleVersion

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SNAPSHOT_EXPIRES = NOW + timedelta(days=30)
TIMESTAMP_EXPIRES = NOW + timedelta(days=7)
orders = st.tuples(st.integers(1, 5), st.integers(1, 50))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=20))
def test_role_versions_never_fall_under_the_same_keys(versions: list[int]) -> None:
    """Whatever comes, the floor is the highest version that was accepted."""
    floors, highest = Floors(), 0
    for version in versions:
        try:
            floors = raise_roles(floors, {"snapshot": RoleVersion(version, "keys")})
        except TrustError as error:
            assert error.code is ErrorCode.ROLLBACK_METADATA
            assert version < highest
        highest = max(highest, version)
        assert floors.roles["snapshot"].version == highest


def test_other_keys_let_a_version_start_again() -> None:
    """A key set that the offline keys replaced takes its floor with it: a fast-forward is not forever."""
    floors = raise_roles(Floors(), {"snapshot": RoleVersion(2**31, "stolen")})
    assert raise_roles(floors, {"snapshot": RoleVersion(1, "new")}).roles["snapshot"].version == 1


def test_a_refused_set_raises_nothing() -> None:
    """One falling role refuses the whole set; the floors stay as they were."""
    floors = raise_roles(Floors(), {"snapshot": RoleVersion(5, "k"), "targets": RoleVersion(5, "k")})
    with pytest.raises(TrustError):
        raise_roles(floors, {"targets": RoleVersion(6, "k"), "snapshot": RoleVersion(4, "k")})
    assert floors.roles["targets"].version == 5


@given(st.lists(orders, min_size=1, max_size=30))
def test_orders_are_compared_as_pairs_and_never_fall(sequence: list[tuple[int, int]]) -> None:
    """A higher epoch begins again at any seq; nothing below the newest pair is accepted."""
    floors, newest = Floors(), (0, 0)
    for order in sequence:
        try:
            fresh = is_newer(floors, "t", order, f"digest of {order}")
        except EnvelopeError as error:
            assert error.code is ErrorCode.REPLAY
            assert order < newest
            continue
        assert fresh is (order > newest)
        newest = max(newest, order)
        floors = raise_order(floors, "t", order, f"digest of {order}", NOW)


def test_one_order_has_one_content() -> None:
    """The same pair with another payload is equivocation; the first stays."""
    floors = raise_order(Floors(), "t", (1, 7), "first", NOW)
    assert is_newer(floors, "t", (1, 7), "first") is False
    with pytest.raises(EnvelopeError) as caught:
        is_newer(floors, "t", (1, 7), "second")
    assert caught.value.code is ErrorCode.EQUIVOCATION


def test_orders_of_topics_do_not_mix() -> None:
    """A high order on one topic closes no other."""
    floors = raise_order(Floors(), "t", (9, 9), "d", NOW)
    assert is_newer(floors, "u", (1, 1), "d")


def test_the_list_of_orders_is_bounded_and_forgets_the_first_to_expire() -> None:
    """Beyond the bound, what expires first goes; the topic just raised stays even if it is that one."""
    floors = Floors()
    for number in range(MAX_ORDERS):
        floors = raise_order(floors, f"t{number}", (1, 1), "d", NOW + timedelta(seconds=number))
    floors = raise_order(floors, "last", (1, 1), "d", NOW - timedelta(days=1))
    assert len(floors.orders) == MAX_ORDERS
    assert "t0" not in floors.orders
    assert "last" in floors.orders


def raised(
    floors: Floors, issued: datetime, *, timestamp_expires: datetime = TIMESTAMP_EXPIRES, director: str = "stolen"
) -> Floors:
    """The clock floor after a directive that was issued at an instant."""
    return raise_clock(
        floors,
        issued,
        timestamp_expires=timestamp_expires,
        snapshot_expires=SNAPSHOT_EXPIRES,
        director_keys=director,
        timestamp_keys="first",
    )


def test_other_director_keys_forget_orders_and_the_clock_they_raised() -> None:
    """A rotation of the director's keys recovers from a fast-forward; counters and quarantine stay."""
    floors = raise_order(Floors(), "t", (2**31, 2**31), "d", NOW)
    floors = bind_director(floors, "stolen").model_copy(update={"orders": floors.orders})
    floors = raised(floors, TIMESTAMP_EXPIRES)
    floors = quarantine(raise_counter(floors, "app", 4), "ab", 2)
    assert bind_director(floors, "stolen") == floors
    after = bind_director(floors, "new")
    assert after.orders == {}
    assert after.clock is None
    assert after.counters == {"app": 4}
    assert after.quarantine == {"ab": 2}


@given(st.lists(st.integers(-3650, 3650), min_size=1, max_size=20), st.integers(0, 3650))
def test_the_clock_floor_never_falls_nor_passes_what_others_signed(days: list[int], timestamp_days: int) -> None:
    """Whatever director and timestamp keys sign, the floor stays below the timestamp's end and the snapshot's last day.

    What was issued after the timestamp's end moves nothing.
    """
    floors, end = Floors(), NOW + timedelta(days=timestamp_days)
    for offset in days:
        before = floors.clock
        try:
            floors = raised(floors, NOW + timedelta(days=offset), timestamp_expires=end)
        except EnvelopeError as error:
            assert error.code is ErrorCode.CLOCK
            assert offset > timestamp_days
            continue
        assert floors.clock is not None
        assert floors.clock <= min(end, SNAPSHOT_EXPIRES - timedelta(days=1))
        assert before is None or floors.clock >= before


def test_other_timestamp_keys_forget_the_clock() -> None:
    """Who held both online keys moved the floor far; root's new timestamp keys take that back, counters stay."""
    floors = raised(raise_counter(Floors(), "app", 4), NOW + timedelta(days=20), timestamp_expires=SNAPSHOT_EXPIRES)
    assert unbind_clock(floors, "first") == floors == unbind_clock(floors, "first second")
    after = unbind_clock(floors, "second")
    assert after.clock is None
    assert after.counters == {"app": 4}


@given(st.lists(st.integers(0, 9), min_size=1))
def test_counters_only_rise(counters: list[int]) -> None:
    """A security counter is the highest that was ever committed."""
    floors = Floors()
    for counter in counters:
        floors = raise_counter(floors, "app", counter)
    assert floors.counters == {"app": max(counters)}


def test_quarantine_holds_until_a_higher_attempt() -> None:
    """What rolled back is refused for that attempt and those before, and for that release only."""
    floors = quarantine(Floors(), "ab", 2)
    assert [is_quarantined(floors, "ab", attempt) for attempt in (1, 2, 3)] == [True, True, False]
    assert not is_quarantined(floors, "cd", 1)


def test_floors_survive_being_written_down() -> None:
    """The file's form keeps everything."""
    floors = raise_order(raise_counter(Floors(), "app", 3), "t", (2, 4), "d", NOW)
    assert Floors.model_validate_json(floors.model_dump_json()) == floors


def test_a_reset_lowers_a_counter_once() -> None:
    """The offline keys may lower a counter; the same reset again, or an older one, lowers nothing."""
    floors = raise_counter(raise_counter(Floors(), "app", 9), "os", 3)
    resets = {"app": CounterReset(number=2, counter=4)}
    floors = reset_counters(floors, resets)
    assert floors.counters == {"app": 4, "os": 3}
    floors = raise_counter(floors, "app", 7)
    assert reset_counters(floors, resets) == floors
    assert reset_counters(floors, {"app": CounterReset(number=1, counter=0)}) == floors


floors_of_any_kind = st.builds(
    lambda role, counter, order, clock: raise_counter(
        raise_order(
            Floors(
                roles={"snapshot": RoleFloor(version=role, keyset="keys")},
                clock=None if clock is None else NOW + timedelta(days=clock),
            ),
            "t",
            order,
            "d",
            NOW,
        ),
        "app",
        counter,
    ),
    st.integers(1, 9),
    st.integers(0, 9),
    orders,
    st.none() | st.integers(-9, 9),
)


@given(floors_of_any_kind, floors_of_any_kind)
def test_of_two_copies_no_floor_is_lost(one: Floors, other: Floors) -> None:
    """Whatever one of them refuses, the merged one refuses."""
    merged = higher(one, other)
    for floors in (one, other):
        assert merged.counters["app"] >= floors.counters["app"]
        assert merged.roles["snapshot"].version >= floors.roles["snapshot"].version
        assert (merged.orders["t"].epoch, merged.orders["t"].seq) >= (floors.orders["t"].epoch, floors.orders["t"].seq)
        assert floors.clock is None or (merged.clock is not None and merged.clock >= floors.clock)


def test_a_key_that_is_added_takes_no_floor_away() -> None:
    """While two director keys are listed, what the first signed long ago is still a replay, and so is old metadata."""
    floors = bind_director(raise_roles(Floors(), {"targets": RoleVersion(7, "targets:a timestamp:t")}), "first")
    floors = raise_order(floors, "t", (1, 9), "d", NOW, "first")
    floors = raised(floors, NOW, director="first")
    both = bind_director(floors, "first second")
    assert (both.orders, both.clock) == (floors.orders, NOW)
    with pytest.raises(EnvelopeError):
        is_newer(both, "t", (1, 8), "older")
    with pytest.raises(TrustError):
        raise_roles(both, {"targets": RoleVersion(6, "targets:a targets:b timestamp:t")})


def test_a_key_that_is_removed_takes_only_its_own_floors_away() -> None:
    """After the second key signed everything anew, removing the first opens nothing; a topic it jammed opens."""
    floors = bind_director(Floors(), "first second")
    floors = raise_order(floors, "signed anew", (1, 9), "d", NOW, "second")
    floors = raise_order(floors, "jammed", (2**31, 1), "d", NOW, "first")
    floors = raised(floors, NOW, director="second")
    after = bind_director(floors, "second")
    assert set(after.orders) == {"signed anew"}
    assert after.clock == NOW
    with pytest.raises(EnvelopeError):
        is_newer(after, "signed anew", (1, 8), "older")
