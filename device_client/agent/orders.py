"""The newest offer and announcement of each rollout, for as long as they may matter. Values in, no clock, no disk.

A process lives for years and hears of many rollouts: what has expired is dropped, and there is a bound whatever comes.
"""

from collections.abc import Callable, Collection
from datetime import datetime

from protocol.directives import Announcement, Grant, Offer

MAX_ROLLOUTS = 256
"""Offers, and announcements, that are kept; beyond that those that expire first go first."""


class Orders:
    """What was accepted. The two mappings are changed in place; others may hold on to them."""

    def __init__(self) -> None:
        self.offers: dict[str, Offer] = {}
        self.announcements: dict[str, Announcement] = {}

    def note(self, order: Offer | Announcement, now: datetime, open_rollout: str | None) -> None:
        """Keep it, and drop what has expired; never what belongs to ``open_rollout``."""
        if isinstance(order, Offer):
            self.offers[order.rollout] = order
        else:
            self.announcements[order.rollout] = order
        kept = {open_rollout, order.rollout}
        _drop(self.announcements, now, kept, ())
        # A closed offer must be remembered as long as its announcement still asks for an answer.
        _drop(self.offers, now, kept, self.announcements)

    def next_offer(self, now: datetime, done: Offer, is_over: Callable[[Offer], bool]) -> Offer | None:
        """The oldest offer that may still be taken on, after the attempt of ``done``, and what ``is_over``, is over."""
        for offer in sorted(self.offers.values(), key=lambda offer: offer.order):
            again = offer.rollout == done.rollout and offer.attempt <= done.attempt
            if offer.grant is not Grant.CLOSED and offer.expires > now and not again and not is_over(offer):
                return offer
        return None


def was_closed(announcement: Announcement, offer: Offer | None) -> bool:
    """Whether the device's part in an announced rollout is over: its offer of that release was closed.

    Of another release it is none: an id was given again, after the orchestrator's database was put back.
    """
    closed = offer is not None and offer.grant is Grant.CLOSED
    return closed and offer is not None and offer.release.sha256 == announcement.release.sha256


def _drop(
    orders: dict[str, Offer] | dict[str, Announcement],
    now: datetime,
    kept: set[str | None],
    asked_for: Collection[str],
) -> None:
    others = [rollout for rollout in orders if rollout not in kept]
    for rollout in others:
        if orders[rollout].expires <= now and rollout not in asked_for:
            del orders[rollout]
    if len(orders) > MAX_ROLLOUTS:
        del orders[min((r for r in others if r in orders), key=lambda rollout: orders[rollout].expires)]
