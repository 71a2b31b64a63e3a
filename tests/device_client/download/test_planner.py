"""The plan of a download: bounded windows, growing delays, nothing asked for that is verified."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_client.download.planner import MAX_PATIENCE, MIN_WINDOW, Plan, WindowLimits

LIMITS = WindowLimits(start=16, most=64, most_bytes=100_000, retry_base_s=1.0, retry_cap_s=60.0)


def _plan(count: int, size: int = 100, limits: WindowLimits = LIMITS) -> Plan:
    return Plan({f"c{number}": size for number in range(count)}, limits, Random(1))


def test_windows_grow_while_all_arrives() -> None:
    """A full window that came doubles the next, up to the most."""
    plan = _plan(1000)
    sizes = []
    for _ in range(4):
        window = plan.next_window(0.0)
        assert window is not None
        sizes.append(len(window.cids))
        plan.came(window)
        plan.verified(window.cids)
    assert sizes == [16, 32, 64, 64]


def test_windows_shrink_on_loss_but_not_to_nothing() -> None:
    """Each loss halves the window, down to the least."""
    plan = _plan(1000)
    for _ in range(8):
        window = plan.next_window(0.0)
        assert window is not None
        plan.lost(window.cids[:1], 0.0)
    assert plan.window_count == MIN_WINDOW


def test_windows_are_bounded_in_bytes() -> None:
    """A window holds as many chunks as fit its bytes, and at least one."""
    plan = _plan(10, size=40_000)
    window = plan.next_window(0.0)
    assert window is not None
    assert window.cids == ("c0", "c1")
    assert window.size_bytes == 80_000
    with pytest.raises(ValueError, match="does not fit"):
        _plan(1, size=100_001)
    with pytest.raises(ValueError, match="does not fit"):
        _plan(1, size=0)


def test_a_first_loss_is_asked_for_again_at_once_and_wanted_after_the_second() -> None:
    """Lost once: due now, nobody is told. Lost twice: due later, and named as wanted."""
    plan = _plan(1)
    assert plan.lost(["c0"], 10.0) == ()
    window = plan.next_window(10.0)
    assert window is not None
    assert window.patience == 2
    assert plan.lost(["c0"], 11.0) == ("c0",)
    assert plan.next_window(11.0) is None
    due = plan.next_due()
    assert due is not None
    assert due > 11.0
    assert plan.next_window(due) is not None


def test_what_was_refused_is_wanted_at_once_and_delayed() -> None:
    """The broker holds something else: asking at once would bring the same again."""
    plan = _plan(1)
    assert plan.refused(["c0"], 0.0) == ("c0",)
    assert plan.next_window(0.0) is None


def test_delays_grow_to_the_cap() -> None:
    """No delay exceeds the cap, and patience is bounded."""
    plan = _plan(1)
    now, delays = 0.0, []
    for _ in range(40):
        plan.lost(["c0"], now)
        due = plan.next_due()
        assert due is not None
        delays.append(due - now)
        now = due
        window = plan.next_window(now)
        assert window is not None
        assert window.patience <= MAX_PATIENCE
    assert max(delays) <= LIMITS.retry_cap_s
    assert max(delays[10:]) > LIMITS.retry_base_s


@given(
    sizes=st.lists(st.integers(1, 5000), max_size=60),
    most=st.integers(1, 64),
    most_bytes=st.integers(5000, 20_000),
    fates=st.lists(st.sampled_from(["came", "lost", "refused", "part"]), max_size=80),
    seed=st.integers(0, 2**32),
)
def test_every_window_is_bounded_and_nothing_verified_is_asked_again(
    sizes: list[int], most: int, most_bytes: int, fates: list[str], seed: int
) -> None:
    """Whatever is lost or refused, windows keep their bounds, and the plan ends when all is verified once."""
    missing = {f"c{number}": size for number, size in enumerate(sizes)}
    plan = Plan(missing, WindowLimits(16, most, most_bytes), Random(seed))
    verified: set[str] = set()
    now = 0.0
    fate = iter(fates)
    for _ in range(1000):
        if plan.done:
            break
        window = plan.next_window(now)
        if window is None:
            due = plan.next_due()
            assert due is not None, "nothing to ask for, and nothing to wait for"
            assert due > now
            now = due
            continue
        assert 0 < len(window.cids) <= most
        assert window.size_bytes == sum(missing[cid] for cid in window.cids) <= most_bytes
        assert not verified & set(window.cids)
        assert len(set(window.cids)) == len(window.cids)
        match next(fate, "came"):
            case "came":
                good = window.cids
                plan.came(window)
            case "lost":
                good = ()
                plan.lost(window.cids, now)
            case "refused":
                good = ()
                plan.refused(window.cids, now)
            case _:
                good = window.cids[::2]
                plan.lost(window.cids[1::2], now)
        plan.verified(good)
        verified.update(good)
    assert plan.done
    assert verified == set(missing)


def test_two_windows_share_no_chunk() -> None:
    """What is out, arriving or being verified, is in no other window; what was never sent is asked for again first."""
    plan = _plan(20)
    first, second = plan.next_window(0.0), plan.next_window(0.0)
    assert first is not None
    assert second is not None
    assert (len(first.cids), len(second.cids)) == (16, 4)
    assert not set(first.cids) & set(second.cids)
    assert plan.next_window(0.0) is None
    assert plan.next_due() is None
    plan.unsent(first.cids[3:5])
    again = plan.next_window(0.0)
    assert again is not None
    assert again.cids == first.cids[3:5]
    assert again.patience == 1


def test_a_smaller_bound_of_bytes_holds_and_one_chunk_fits_always() -> None:
    """What the link needs may be less than what the device allows, and less than a chunk."""
    plan = _plan(20)
    sizes = []
    for most_bytes in (450, 100, 1):
        window = plan.next_window(0.0, most_bytes)
        assert window is not None
        sizes.append(len(window.cids))
    assert sizes == [4, 1, 1]


def test_a_chunk_that_was_of_no_use_is_replaced_by_others() -> None:
    """What is fetched in its place is asked for once, even where it was missing already."""
    plan = Plan({"delta": 10, "full": 20}, WindowLimits(16, 64, 1000), Random(0))
    plan.replace("delta", {"full": 20, "other": 30})
    window = plan.next_window(0.0)
    assert window is not None
    assert window.cids == ("full", "other")
    plan.verified(("full", "other"))
    assert plan.done
