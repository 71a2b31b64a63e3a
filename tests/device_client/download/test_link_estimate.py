"""Windows as large as a link needs: grown while the rate grows, small on short links and on slow ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_client.download.link_estimate import LEAST_BYTES, START_BYTES, Asked, LinkEstimate

MOST = 16 * 2**20


def _run(rate_bytes_s: float, delay_s: float, windows: int = 40, most: int = MOST) -> list[int]:
    """Window sizes over a link of that rate and delay, with two windows out at a time."""
    link, received, free_at, sizes = LinkEstimate(), 0, 0.0, []
    out: list[tuple[Asked, int, float, float]] = []
    now = 0.0
    for _ in range(windows):
        while len(out) < 2:
            size = link.window_bytes(most)
            sizes.append(size)
            first_at = max(now + delay_s, free_at)
            free_at = first_at + size / rate_bytes_s
            out.append((Asked(now, received), size, first_at - now, free_at))
        asked, size, delay, now = out.pop(0)
        received += size
        link.answered(asked, now, received, delay)
    return sizes


@pytest.mark.parametrize(
    ("mbit_s", "rtt_s"),
    [(100, 0.2), (100, 0.05), (20, 0.2), (1000, 0.02)],
    ids=["100 Mbit/s 200 ms", "100 Mbit/s 50 ms", "20 Mbit/s 200 ms", "1 Gbit/s 20 ms"],
)
def test_windows_grow_until_the_link_is_full(mbit_s: int, rtt_s: float) -> None:
    """A window lasts at least a round trip, is found in a few windows, and is not much larger than that."""
    needed = mbit_s * 1e6 / 8 * rtt_s
    sizes = _run(mbit_s * 1e6 / 8, rtt_s)
    assert needed <= sizes[8]
    assert needed <= sizes[-1] <= max(1.5 * needed, LEAST_BYTES)


def test_short_links_keep_windows_small() -> None:
    """Where nothing is gained by it, nothing more is held in memory, however fast the link is."""
    assert _run(2e8, 0.001)[-1] == LEAST_BYTES


def test_slow_links_get_windows_of_two_seconds() -> None:
    """A window on a slow link is over in a few seconds, so that what is known of it is news."""
    assert _run(20_000, 0.05)[-1] == pytest.approx(40_000, rel=0.01)


def test_the_devices_cap_holds() -> None:
    """A link that would take more than the device has memory for gets what the device allows."""
    assert max(_run(1e9, 1.0, most=2**20)) == 2**20


def test_nothing_is_known_at_first_and_after_a_change() -> None:
    """Before the first window, and on another connection, a start is made."""
    link = LinkEstimate()
    assert link.window_bytes(MOST) == START_BYTES
    link.answered(Asked(0.0, 0), 1.0, 10**8, 0.5)
    assert link.window_bytes(MOST) == MOST
    link.forget()
    assert (link.window_bytes(MOST), link.delay_s, link.rate_bytes_s) == (START_BYTES, None, 0.0)


def test_what_a_buffer_held_back_is_no_bandwidth() -> None:
    """A window that came at one instant after a wait counts from when it was asked for."""
    link = LinkEstimate()
    link.answered(Asked(0.0, 0), 2.0, 1000, 2.0)
    assert link.rate_bytes_s == 500


def test_one_slow_window_changes_nothing() -> None:
    """The greatest rate and the least delay of recent windows count: the rest is disturbance."""
    link = LinkEstimate()
    link.answered(Asked(0.0, 0), 1.0, 10**6, 0.1)
    link.answered(Asked(1.0, 10**6), 10.0, 2 * 10**6, 5.0)
    assert (link.rate_bytes_s, link.delay_s) == (10**6, 0.1)
    for at in range(10):
        link.answered(Asked(at, 0), at + 1.0, 10**5, 0.2)
    assert link.rate_bytes_s == 10**5


@given(
    st.lists(
        st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(0, 2**40), st.none() | st.floats(-1, 1e6)),
        max_size=30,
    ),
    st.integers(1, MOST),
)
def test_whatever_is_measured_a_window_is_possible(
    measured: list[tuple[float, float, int, float | None]], most: int
) -> None:
    """No measurement, however absurd, leads to a window of nothing or of more than the cap."""
    link = LinkEstimate()
    for asked_at, took_s, received, delay_s in measured:
        link.answered(Asked(asked_at, 0), asked_at + took_s, received, delay_s)
        assert 1 <= link.window_bytes(most) <= most
