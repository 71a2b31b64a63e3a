"""What is remembered of rollouts: the newest of each, no longer than it matters, and never without bound."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from device_client.agent.orders import MAX_ROLLOUTS, Orders
from protocol.directives import Action, Announcement, Grant, Offer, ReleaseRef

NOW = datetime(2026, 11, 23, tzinfo=UTC)
RELEASE = ReleaseRef(path="cam/1.1.0/manifest", length=1, sha256="ab" * 32, counter=0)


def _offer(rollout: str, *, hours: float = 24, grant: Grant = Grant.DOWNLOAD, seq: int = 1, attempt: int = 1) -> Offer:
    return Offer(
        fleet="f", issued=NOW, rollout=rollout, expires=NOW + timedelta(hours=hours), epoch=1, seq=seq, device="d",
        grant=grant, release=RELEASE, attempt=attempt,
    )  # fmt: skip


def _announcement(rollout: str, *, hours: float = 24) -> Announcement:
    return Announcement(
        fleet="f", issued=NOW, rollout=rollout, expires=NOW + timedelta(hours=hours), epoch=1, seq=1, release=RELEASE,
        action=Action.INSTALL,
    )  # fmt: skip


def test_what_has_expired_is_dropped() -> None:
    """Except what the open update stands on, and what has come right now."""
    orders = Orders()
    for rollout in ("open", "old"):
        orders.note(_offer(rollout, hours=1), NOW, "open")
        orders.note(_announcement(rollout, hours=1), NOW, "open")
    orders.note(_offer("new"), NOW + timedelta(hours=2), "open")
    assert set(orders.offers) == {"open", "new"}
    assert set(orders.announcements) == {"open"}


def test_a_closed_offer_is_remembered_as_long_as_it_is_announced() -> None:
    """Else the device would say that it is ready for a rollout that it is through with."""
    orders = Orders()
    orders.note(_announcement("r", hours=48), NOW, None)
    orders.note(_offer("r", hours=1, grant=Grant.CLOSED), NOW, None)
    orders.note(_offer("new", hours=48), NOW + timedelta(hours=2), None)
    assert "r" in orders.offers
    orders.note(_offer("newer", hours=99), NOW + timedelta(hours=50), None)
    assert set(orders.offers) == {"newer"}


def test_the_next_offer_is_the_oldest_that_may_be_taken() -> None:
    """Not a closed one, not an expired one, and not the attempt that is over; a higher attempt of it is."""
    orders = Orders()
    done = _offer("done", seq=1, attempt=2)
    for offer in (
        done,
        _offer("closed", seq=2, grant=Grant.CLOSED),
        _offer("late", seq=3, hours=-1),
        _offer("b", seq=5),
        _offer("a", seq=4),
    ):
        orders.note(offer, NOW, "done")
    found = orders.next_offer(NOW, done, lambda _: False)
    assert found
    assert found.rollout == "a"
    orders.note(_offer("done", seq=2, attempt=3), NOW, "done")
    again = orders.next_offer(NOW, done, lambda _: False)
    assert again
    assert again.attempt == 3
    assert orders.next_offer(NOW + timedelta(days=9), done, lambda _: False) is None


@given(
    hours=st.lists(st.integers(-2, 48), min_size=1, max_size=20),
    kinds=st.lists(st.booleans(), min_size=1, max_size=20),
)
def test_there_is_a_bound(hours: list[int], kinds: list[bool]) -> None:
    """However many rollouts are signed: the bound holds, and the open rollout's orders are never pushed out."""
    orders = Orders()
    orders.note(_offer("open", hours=-1), NOW, "open")
    orders.note(_announcement("open", hours=-1), NOW, "open")
    for number in range(2 * MAX_ROLLOUTS):
        hour = hours[number % len(hours)]
        if kinds[number % len(kinds)]:
            orders.note(_offer(f"r{number}", hours=hour), NOW, "open")
        else:
            orders.note(_announcement(f"r{number}", hours=hour), NOW, "open")
    assert len(orders.offers) <= MAX_ROLLOUTS
    assert len(orders.announcements) <= MAX_ROLLOUTS
    assert "open" in orders.offers
    assert "open" in orders.announcements
