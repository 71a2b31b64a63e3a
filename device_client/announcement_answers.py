"""Answers live announcements with readiness before there is an offer: judged gates in, signed reports out."""

import secrets

from device_client.agent.orders import was_closed
from device_client.agent.runner import Runner
from device_client.availability import Availability
from device_client.gate_keeper import GateKeeper
from device_client.refusals import Refusals
from device_client.reporter import Reporter
from device_client.verification.release import Verifier
from protocol.clock import Clock
from protocol.directives import Action, Announcement
from protocol.errors import ErrorCode, FlagshipError, ProtocolError
from protocol.reports import Reason
from protocol.states import Phase


class AnnouncementAnswers:
    """Says to every announcement that is meant for this device: ready, or why not.

    Attributes:
        is_open: Whether there was such an announcement at the last look.
    """

    def __init__(
        self,
        runner: Runner,
        keeper: GateKeeper,
        verifier: Verifier,
        refusals: Refusals,
        reporter: Reporter,
        availability: Availability,
        clock: Clock,
        interval_s: float,
    ) -> None:
        self._runner = runner
        self._keeper = keeper
        self._verifier = verifier
        self._refusals = refusals
        self._reporter = reporter
        self._availability = availability
        self._clock = clock
        self._interval_s = interval_s
        self._next: dict[str, tuple[tuple[int, int], float]] = {}
        self.is_open = False

    def repeat_all(self) -> None:
        """Reports may have been lost: say everything again."""
        self._next.clear()
        self._availability.repeat_all(self._clock.monotonic())

    async def answer(self) -> None:
        """Judge what is due and say what is news; called a few times a second while connected."""
        for rollout in self._next.keys() - self._runner.announcements.keys():
            del self._next[rollout]
        self.is_open = False
        for announcement in list(self._runner.announcements.values()):
            if not self._is_open_to_me(announcement):
                self._availability.forget(announcement.rollout)
                continue
            self.is_open = True
            if self._is_due(announcement):
                reasons, fits = await self._judge_announced(announcement)
                if fits:
                    await self._say(announcement, reasons)

    def _is_open_to_me(self, announcement: Announcement) -> bool:
        offer, update = self._runner.offers.get(announcement.rollout), self._runner.update
        open_here = update is not None and update.offer.rollout == announcement.rollout
        return not open_here and not was_closed(announcement, offer) and self._is_live(announcement)

    def _is_due(self, announcement: Announcement) -> bool:
        order, now = announcement.order, self._clock.monotonic()
        seen, at = self._next.get(announcement.rollout, ((0, 0), 0.0))
        if seen == order and now < at:
            return False
        self._next[announcement.rollout] = order, now + self._interval_s
        return True

    async def _judge_announced(self, announcement: Announcement) -> tuple[list[Reason], bool]:
        reasons: list[Reason] = []
        try:
            judgement = await self._keeper.judge(announcement.rollout, announcement.release, Phase.DOWNLOAD)
            reasons.extend(judgement.reasons)
        except ProtocolError as error:
            if error.code is ErrorCode.HARDWARE:
                return [], False  # for other devices
            reasons.append(Reason(gate="trust", code=error.code.value.lower(), detail=error.detail[:500]))
        except (FlagshipError, OSError) as error:
            reasons.append(Reason(gate="device", code="broken", detail=str(error)[:500]))
        if self._runner.update is not None and not self._runner.update.is_over:
            other = self._runner.update.offer.rollout
            reasons.append(Reason(gate="busy", code="busy", detail=f"rollout {other} is under way here"))
            if len(reasons) == 1:  # ready but for that: whoever may preempt reads it off a single reason
                return reasons, True
        for about in (announcement.rollout, ""):
            refused = self._refusals.newest.get(about)
            if refused:
                code, detail = refused
                reasons.append(Reason(gate="refused", code=code.value.lower(), detail=detail[:500]))
        return reasons, True

    async def _say(self, announcement: Announcement, reasons: list[Reason]) -> None:
        ready = all(reason.gate == "refused" for reason in reasons)
        nonce = self._availability.due(
            announcement, reasons, ready=ready, nonce=secrets.token_urlsafe(12), now=self._clock.monotonic()
        )
        if nonce:
            await self._reporter.readiness(
                announcement.rollout, 0, nonce, Phase.DOWNLOAD, reasons, ready=ready, stale=self._verifier.stale
            )

    def _is_live(self, announcement: Announcement) -> bool:
        if announcement.offline_until is not None:
            return False  # it came from a medium: nobody waits for an answer
        return announcement.action is Action.INSTALL and announcement.expires > self._verifier.now()
