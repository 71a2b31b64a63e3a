"""Which gates there are, and the strictest policy they are judged by.

Two of them are orders, not facts of the device: the rollout's announcement must say install and its lease must be
alive. They are gates all the same, so that a halt and a silent orchestrator show up as reasons like any other. An offer
that lets the device act unasked adds questions: whether the owner allows that, whether the clock tells until when.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from device_client.config import DeviceSettings
from device_client.gates.gate import Gate, GateContext, Judgement, Ready, Verdict, Wait, judge_all
from device_client.gates.policy import asks_for_less, strictest, window_sets
from device_client.verification.release import Verifier
from protocol.clock import rfc3339
from protocol.directives import MAX_OFFLINE, Action, Announcement, Offer, ReleaseRef
from protocol.states import Phase

MAX_REMEMBERED = 32
"""Rollouts whose last judgement is kept."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A judgement that was made.

    Attributes:
        at: When, by the clock that is believed.
        asked_at: When, monotonic.
    """

    phase: Phase
    at: datetime
    asked_at: float
    judgement: Judgement


class GateKeeper:
    """Judges all gates of one phase of one rollout.

    Attributes:
        judged: The last judgement of each rollout, the newest last.
    """

    def __init__(
        self,
        gates: Sequence[Gate],
        settings: DeviceSettings,
        verifier: Verifier,
        announcements: Mapping[str, Announcement],
    ) -> None:
        self._gates = gates
        self._settings = settings
        self._verifier = verifier
        self._announcements = announcements
        self.judged: dict[str, Judged] = {}

    def is_overdue(self, waited_s: float) -> bool:
        """Whether the owner lets gates be passed by after such a wait."""
        gates = self._settings.gates
        return gates.on_deadline == "force" and 0 < gates.deadline_s <= waited_s

    async def judge(self, rollout: str, release: ReleaseRef, phase: Phase, offer: Offer | None = None) -> Judgement:
        """All gates.

        Args:
            offer: That is followed, if there is one yet.

        Raises:
            TrustError: The release is not listed any more, or does not fit.
        """
        target = await asyncio.to_thread(self._verifier.check, release)
        announcement = self._announcements.get(rollout)
        own, manifest = self._settings.policy(), target.info.policy
        asked = announcement.policy if announcement else strictest()
        less = asks_for_less(asked, strictest(own, manifest))
        context = GateContext(
            phase=phase,
            rollout=rollout,
            need_bytes=target.info.space_bytes if phase is not Phase.ACTIVATE else 0,
            policy=strictest(own, manifest, asked),
            manifest_digest=release.sha256,
            window_sets=window_sets(release=manifest, rollout=asked),
            version=target.info.version,
        )
        offline = offer if offer is not None and offer.offline_until is not None else None
        order = _OrderGate(announcement, self._verifier, less, offline, allowed=self._settings.gates.allow_offline)
        judgement = await judge_all([order, *self._gates], context)
        self._remember(rollout, phase, judgement)
        return judgement

    def _remember(self, rollout: str, phase: Phase, judgement: Judgement) -> None:
        clock = self._verifier.clock
        self.judged.pop(rollout, None)
        self.judged[rollout] = Judged(phase, clock.now(), clock.monotonic(), judgement)
        while len(self.judged) > MAX_REMEMBERED:
            del self.judged[next(iter(self.judged))]


class _OrderGate:
    """The announcement: install, in time, and asking for no less than the device and the manifest do."""

    name = "order"

    def __init__(
        self,
        announcement: Announcement | None,
        verifier: Verifier,
        less: tuple[str, ...],
        offline: Offer | None,
        *,
        allowed: bool,
    ) -> None:
        self._announcement = announcement
        self._verifier = verifier
        self._less = less
        self._offline = offline
        self._allowed = allowed

    async def judge(self, context: GateContext) -> Verdict:
        """Wait on a hold, an expired lease, or an order that asks for less safety (E_UNSAFE)."""
        if self._offline is not None and (shut := self._judge_offline(self._offline)) is not None:
            return shut
        announcement = self._announcement
        if announcement is None:
            return Wait("lease", f"no announcement of rollout {context.rollout} has come")
        if announcement.offline_until is not None and self._offline is None:
            return Wait("lease", f"the announcement of rollout {context.rollout} is a medium's, for offers from there")
        if announcement.expires <= self._verifier.now():
            return Wait("lease", f"the lease ran out at {rfc3339(announcement.expires)}; none newer came")
        if announcement.action is not Action.INSTALL:
            return Wait("hold", f"rollout {context.rollout} is on {announcement.action}")
        if self._less:
            return Wait("e_unsafe", f"the order asks for less than this device demands: {', '.join(self._less)}")
        return Ready(f"install, by a lease until {rfc3339(announcement.expires)}")

    def _judge_offline(self, offer: Offer) -> Wait | None:
        """Whether the device may go on unasked now; None when it may."""
        until = offer.offline_until
        assert until is not None
        if not self._allowed:
            detail = f"the order lets this device act unasked until {rfc3339(until)}; [gates] allow_offline is not set"
            return Wait("e_unsafe", detail)
        if until - offer.issued > MAX_OFFLINE:
            detail = f"the order lets this device act unasked until {rfc3339(until)}, more than {MAX_OFFLINE.days} d"
            return Wait("e_unsafe", detail)
        if doubt := self._verifier.clock.doubt:
            return Wait("clock", f"{doubt}; until it is right nothing is done unasked")
        if until <= self._verifier.now():
            return Wait("offline", f"the time to act unasked ended at {rfc3339(until)}; connect the device")
        return None
