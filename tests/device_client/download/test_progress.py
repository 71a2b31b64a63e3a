"""What is told of a download: never backwards, copied and resumed bytes counted at once."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from device_client.download.progress import DownloadProgress


@dataclass(frozen=True)
class Moved:
    """What a transfer tells."""

    present_bytes: int = 0
    total_bytes: int = 1000
    fetched_bytes: int = 0
    copied_bytes: int = 0
    delta_bytes: int = 0


def test_a_crawl_is_told_without_a_time() -> None:
    """One small chunk in a day of a large image: what is said fits what the protocol carries."""
    progress = DownloadProgress()
    progress.moved(Moved(total_bytes=10**11), 0.0)
    standing = progress.moved(Moved(present_bytes=64, total_bytes=10**11, fetched_bytes=80), 86_400.0)
    assert standing.rate_bytes_s > 0 and standing.remaining_s is None
    done = progress.moved(Moved(present_bytes=10**11, total_bytes=10**11, fetched_bytes=80), 86_401.0)
    assert done.remaining_s == 0


def test_the_manifest_counts_no_percent() -> None:
    """How much there is to do is not known before it is open; its bytes are counted."""
    progress = DownloadProgress()
    standing = progress.listed(Moved(present_bytes=64, total_bytes=64, fetched_bytes=64), 1.0)
    assert (standing.percent, standing.fetched_bytes, standing.total_bytes) == (0, 64, 0)
    standing = progress.moved(Moved(present_bytes=500, fetched_bytes=100, copied_bytes=400), 2.0)
    assert (standing.percent, standing.fetched_bytes, standing.copied_bytes) == (50, 164, 400)


def test_rate_and_remaining_time_are_of_the_last_seconds() -> None:
    """Ciphertext by the second; what is left, by how quickly the image grew."""
    progress = DownloadProgress()
    for second in range(31):
        speed = 100 if second <= 10 else 10
        present = 100 * min(second, 10) + 10 * max(0, second - 10)
        standing = progress.moved(Moved(present, 2000, present // 2), float(second))
        if second == 10:
            assert (standing.rate_bytes_s, standing.remaining_s) == (50, 1000 / speed)
    assert (standing.rate_bytes_s, standing.remaining_s) == (5, 800 / 10)


def test_nothing_moves() -> None:
    """No rate, and no end in sight; when all is there, none is needed."""
    progress = DownloadProgress()
    progress.moved(Moved(10), 0.0)
    standing = progress.moved(Moved(10), 60.0)
    assert (standing.rate_bytes_s, standing.remaining_s) == (0, None)
    assert progress.moved(Moved(1000), 61.0).remaining_s == 0


def test_a_new_run_goes_on() -> None:
    """What former runs moved is not forgotten: their bytes count on, the copied ones too."""
    progress = DownloadProgress(before_bytes=7)
    progress.listed(Moved(64, 64, 64), 0.0)
    progress.moved(Moved(600, 1000, 100, 500, 40), 1.0)
    progress.again()
    assert progress.listed(Moved(64, 64, 0), 2.0).percent == 60
    standing = progress.moved(Moved(700, 1000, 100, 0, 10), 3.0)
    assert (standing.fetched_bytes, standing.copied_bytes, standing.delta_bytes) == (7 + 64 + 100 + 100, 500, 50)


@given(
    st.lists(
        st.one_of(st.just(None), st.tuples(st.integers(0, 1000), st.integers(0, 10**6), st.floats(0, 100))), max_size=40
    )
)
def test_percentages_never_go_back(steps: list[tuple[int, int, float] | None]) -> None:
    """Whatever is damaged and fetched again, and however often it begins anew; rates are never negative."""
    progress, high, now = DownloadProgress(), 0.0, 0.0
    for step in steps:
        if step is None:
            progress.again()
            continue
        present, fetched, passed = step
        now += passed
        standing = progress.moved(Moved(present, 1000, fetched), now)
        assert high <= standing.percent <= 100
        assert standing.rate_bytes_s >= 0
        assert standing.remaining_s is None or standing.remaining_s >= 0
        high = standing.percent
