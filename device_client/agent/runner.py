"""Drives the machine: takes what happens one by one, advances, saves, then hands effects out.

The only writer of the journal. Everything that waits for an answer is repeated here with back-off and jitter until
an offer says that it was heard; deadlines of grants and of verifying are watched here, on the monotonic clock.
"""

import asyncio
import secrets
from random import Random

import structlog

from device_client.agent import events as ev
from device_client.agent.effects import Effect, Performer
from device_client.agent.journal import Journal, Update
from device_client.agent.machine import IllegalEvent, Step, advance, begin
from device_client.agent.orders import Orders
from device_client.agent.recovery import recover
from device_client.agent.untold import Untold
from device_client.agent.waiting import WaitingClock
from device_client.boot import boot_id
from device_client.config import TimingSection
from device_client.errors import DeviceError
from protocol.clock import Clock
from protocol.directives import Action, Announcement, Grant, Offer
from protocol.states import State

log = structlog.get_logger(__name__)

QUEUE_BOUND = 256
SAVE_RETRY_S = 0.5
MAX_SAVE_RETRY_S = 30.0
_JUDGED = frozenset({State.WAITING, State.FETCHED, State.INSTALLED})
"""A judgement that was dropped, or could not be made yet, is made again."""


class Runner:
    """One device's open update, if any."""

    def __init__(
        self,
        journal: Journal,
        timing: TimingSection,
        clock: Clock,
        random: Random,
        waiting: WaitingClock | None = None,
    ) -> None:
        self._journal = journal
        self._timing = timing
        self._clock = clock
        self._random = random
        self.loaded = asyncio.Event()
        self._queue: asyncio.Queue[ev.Event | Offer | Announcement] = asyncio.Queue(QUEUE_BOUND)
        self._performer: Performer | None = None
        self._waiting = waiting or WaitingClock(0, expires=False)
        self._untold = Untold(journal.beside("untold.json"))
        self.update: Update | None = None
        self._orders = Orders()
        self.offers, self.announcements = self._orders.offers, self._orders.announcements
        self._grant_until = 0.0
        self._verifying_since = 0.0
        self._connected_at = 0.0
        self._connected = False
        self._report: Effect | None = None
        self._repeat_at = 0.0
        self._repeats = 0
        self._judge_at = 0.0

    def attach(self, performer: Performer) -> None:
        """Set who carries effects out; before ``run``."""
        self._performer = performer

    async def post(self, item: ev.Event | Offer | Announcement) -> None:
        """Hand in what happened; waits while the queue is full."""
        await self._queue.put(item)

    def set_connected(self, *, connected: bool) -> None:
        """Note the state of the link: silence of the broker has its own deadline while verifying."""
        if connected != self._connected:  # a broker that refuses us again and again is silent all the while
            self._connected_at = self._clock.monotonic()
        self._connected = connected
        self._untold.hurry()
        if connected and self.update and not self.update.heard:
            self._repeat_at = 0.0

    def repeat_level(self) -> None:
        """Reports may have been lost up there: say again where we stand, spread over a few seconds."""
        if self.update:
            spread = self._random.uniform(0, self._timing.readiness_retry_s)
            self._report = self._report or Effect.REPORT_STATE
            self._repeat_at = self._clock.monotonic() + spread
            if self.update.heard:
                self.update = self.update.model_copy(update={"heard": False})

    async def run(self) -> None:
        """Recover, then take events until cancelled."""
        # A restart in mid-verifying starts its deadlines anew: the monotonic clock began with the machine, not with us.
        self._verifying_since = self._connected_at = self._clock.monotonic()
        self.update = await asyncio.to_thread(self._journal.load)
        await asyncio.to_thread(self._untold.load)
        self.loaded.set()
        if self.update is None:
            await asyncio.to_thread(self._perform.begin_idle)
        else:
            runs = await asyncio.to_thread(self._perform.runs_offered, self.update)
            self.offers[self.update.offer.rollout] = self.update.offer
            log.info("update recovered", rollout_id=self.update.offer.rollout, state=self.update.state.value)
            await self._apply(recover(self.update, boot_id(), _nonce(), runs_new_version=runs))
        while True:
            item = await self._queue.get()
            try:
                await self._take(item)
            except IllegalEvent as error:
                log.info("event dropped", why=str(error))

    async def tick(self) -> None:
        """Called a few times a second: deadlines, repeats, gates that may have opened."""
        update, now = self.update, self._clock.monotonic()
        if self._connected and (untold := self._untold.due(now, self._timing, self._random)):
            self._perform.start(Effect.REPORT_STATE, untold)
        if update is None:
            return
        if update.granted and now >= self._grant_until:
            await self.post(ev.GrantEnded())
        if update.state is State.VERIFYING:
            await self._watch_verifying(update, now)
        if update.state is State.DOWNLOADING and self._lease_ended(update):
            await self.post(ev.LeaseEnded())
        if waited := self._waiting.see(update, now):
            await self.post(waited)
        if update.state in _JUDGED and now >= self._judge_at:
            self._judge_at = now + self._timing.gate_interval_s
            self._perform.start(Effect.JUDGE_GATES, update)
        if self._report and not update.heard and update.nonce and now >= self._repeat_at:
            self._repeats += 1
            self._schedule_repeat()
            self._perform.start(self._report, update)

    def _lease_ended(self, update: Update) -> bool:
        announced = self.announcements.get(update.offer.rollout)
        return announced is not None and announced.expires <= self._clock.now()

    async def _watch_verifying(self, update: Update, now: float) -> None:
        if (self._connected or update.offline) and now - self._verifying_since > self._timing.verify_timeout_s:
            what = "proof of its own" if update.offline else "answer"
            await self.post(ev.VerifyTimedOut(f"no {what} in {self._timing.verify_timeout_s:.0f} s"))
        elif not self._connected and not update.offline:
            silent_s = now - max(self._connected_at, self._verifying_since)
            if silent_s > self._timing.network_deadline_s and not update.heard:
                await self.post(ev.VerifyTimedOut(f"no broker in {self._timing.network_deadline_s:.0f} s"))

    async def _take(self, item: ev.Event | Offer | Announcement) -> None:
        match item:
            case Offer():
                await self._take_offer(item)
            case Announcement():
                await self._take_announcement(item)
            case _ if self.update:
                await self._advance(item)
            case _:
                log.info("event dropped", why=f"{type(item).__name__} without an update")

    async def _take_offer(self, offer: Offer) -> None:
        update = self.update
        self._orders.note(offer, self._clock.now(), update.offer.rollout if update else None)
        over = self._untold.covers(offer)
        if self._untold.knows(offer.rollout):
            await asyncio.to_thread(self._untold.hear, offer)
        if over:
            return
        if update is None or self._supersedes(offer, update):
            await self._begin(offer)
        elif update.offer.rollout == offer.rollout and offer.attempt == update.offer.attempt:
            await self._renew(offer, update)
        elif update.is_over and offer.offline_until and await asyncio.to_thread(self._untold.add, update):
            await self._begin(offer)  # without a link nobody hears an outcome; the next medium need not wait for that

    def _supersedes(self, offer: Offer, update: Update) -> bool:
        return (
            offer.rollout == update.offer.rollout
            and offer.attempt > update.offer.attempt
            and update.is_over
            and offer.grant is not Grant.CLOSED
        )

    async def _begin(self, offer: Offer) -> None:
        if offer.grant is Grant.CLOSED:
            return
        announced = self.announcements.get(offer.rollout)
        action = announced.action if announced else Action.INSTALL
        fresh = Update(offer=offer, boot_id=boot_id(), action=action)
        log.info("offer taken", rollout_id=offer.rollout, release=offer.release.path)
        await self._apply(begin(fresh))
        if action is Action.ABORT:
            await self._advance(ev.Announced(action))  # the announcement overtook the offer

    async def _renew(self, offer: Offer, update: Update) -> None:
        granted = offer.grant is Grant.ACTIVATE and offer.nonce == update.nonce and not update.is_over
        # The very same offer once more (a reconnect, a replay) must not make a grant last longer.
        if granted and not (update.granted and offer.order == update.offer.order):
            self._grant_until = self._clock.monotonic() + (offer.grant_s or 0)
        if not update.is_over:
            await self._advance(ev.OfferRenewed(offer, granted))
        if offer.heard.nonce:
            await self._advance(ev.Heard(offer.heard.nonce, outcome=offer.heard.outcome is not None))
        still = self.update  # once an outcome was heard, this is the next rollout's update or none
        same = still is not None and still.offer.rollout == offer.rollout and not still.is_over
        if offer.grant is Grant.CLOSED and same:
            ends = ev.Superseded if offer.is_superseded else ev.Closed
            await self._advance(ends(offer.reason or "closed"))

    async def _take_announcement(self, announcement: Announcement) -> None:
        update = self.update
        self._orders.note(announcement, self._clock.now(), update.offer.rollout if update else None)
        if update and update.offer.rollout == announcement.rollout:
            await self._advance(ev.Announced(announcement.action))
            if self.update and self.update.state is State.WAITING:
                self._judge_at = 0.0

    async def _advance(self, event: ev.Event) -> None:
        if self.update is None:
            return
        if self.update.granted and self._clock.monotonic() >= self._grant_until:
            # A tick would say so, a moment too late for the event at hand.
            await self._apply(advance(self.update, ev.GrantEnded(), _nonce()))
        await self._apply(advance(self.update, event, _nonce()))

    async def _apply(self, step: Step) -> None:
        """Save before acting: what is acted on twice is harmless, what is not saved is lost."""
        before = self.update
        if _is_news(before, step.update) or Effect.FORGET in step.effects:
            forgotten = Effect.FORGET in step.effects
            await self._save(None if forgotten else step.update)
        self.update = step.update
        self._note(before, step.update)
        for effect in step.effects:
            match effect:
                case Effect.FORGET:
                    await self._forget()
                case Effect.REPORT_STATE | Effect.REPORT_READINESS:
                    self._report, self._repeats = effect, 0
                    self._schedule_repeat()
                    self._perform.start(effect, step.update)
                case _:
                    self._perform.start(effect, step.update)

    async def _save(self, update: Update | None) -> None:
        """Try until the disk takes it: nothing is done that was not saved, and nothing that happened is lost."""
        retry_s = SAVE_RETRY_S
        while True:
            try:
                await asyncio.to_thread(self._journal.save, update)
                return
            except (DeviceError, OSError) as error:
                log.error("journal not saved", why=str(error)[:500], retry_s=retry_s)
            if update and update.is_over:
                self._perform.start(Effect.CLEAN_UP, update)  # makes room; it is due anyway
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, MAX_SAVE_RETRY_S)

    def _note(self, before: Update | None, after: Update) -> None:
        if before and (before.state, before.phase) == (after.state, after.phase):
            return
        if after.state is State.VERIFYING:
            self._verifying_since = self._clock.monotonic()
        log.info(
            "state changed",
            rollout_id=after.offer.rollout,
            state=after.state.value,
            phase=after.phase.value if after.phase else None,
            code=after.code.value if after.code else None,
        )

    async def _forget(self) -> None:
        done, self.update, self._report = self.update, None, None
        following = self._orders.next_offer(self._clock.now(), done.offer, self._untold.covers) if done else None
        if following:
            await self._begin(following)

    def _schedule_repeat(self) -> None:
        ceiling = min(self._timing.readiness_level_s, self._timing.readiness_retry_s * 2 ** min(self._repeats, 16))
        self._repeat_at = self._clock.monotonic() + self._random.uniform(ceiling / 2, ceiling)

    @property
    def _perform(self) -> Performer:
        if self._performer is None:
            raise RuntimeError("attach a performer before running")
        return self._performer


def _is_news(before: Update | None, after: Update) -> bool:
    """Whether it must be on the disk; of gates that stay shut the figures change all the time, and wear flash."""
    return before is None or before.model_copy(update={"reasons": after.reasons}) != after


def _nonce() -> str:
    return secrets.token_urlsafe(12)
