"""When gates are judged for the open update: for its phase, and once more right before what they guard.

Between a judgement and what it allows there may be a disk that does not take the journal, or a slow hook.
"""

from dataclasses import dataclass

import structlog

from device_client.agent.journal import Update
from device_client.gate_keeper import GateKeeper
from device_client.gates.gate import Judgement
from protocol.clock import Clock
from protocol.states import Phase

log = structlog.get_logger(__name__)

FRESH_S = 1.0
"""A judgement that is older is made once more."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A judgement of the open update.

    Attributes:
        forced: Gates are shut, but the owner's deadline has passed, and lets all of these be passed by.
    """

    judgement: Judgement
    forced: bool

    @property
    def is_open(self) -> bool:
        """Whether the update may go on."""
        return self.forced or self.judgement.ready


class Judging:
    """Of one device."""

    def __init__(self, keeper: GateKeeper, clock: Clock) -> None:
        self._keeper = keeper
        self._clock = clock
        self._last: tuple[Phase, float] | None = None

    async def judge(self, update: Update) -> Judged:
        """All gates of the phase that it waits in.

        Raises:
            TrustError: The release is not listed any more, or does not fit.
        """
        phase = update.phase or Phase.DOWNLOAD
        self._last = phase, self._clock.monotonic()
        return await self._judge(update, phase)

    async def judge_again(self, update: Update, phase: Phase) -> Judged | None:
        """The same right before what they guard; None where that was just done.

        And after a restart, for what was begun before: that is ended.

        Raises:
            TrustError: As above.
        """
        if self._last is None or self._last[0] is not phase or self._clock.monotonic() - self._last[1] <= FRESH_S:
            return None
        return await self._judge(update, phase)

    async def _judge(self, update: Update, phase: Phase) -> Judged:
        offer = update.offer
        judgement = await self._keeper.judge(offer.rollout, offer.release, phase, offer)
        forced = not judgement.ready and judgement.may_be_forced and self._keeper.is_overdue(update.waited_s)
        if forced:
            passed = [reason.gate for reason in judgement.reasons]
            log.warning("gates passed by", rollout_id=offer.rollout, gates=passed, waited_s=update.waited_s)
        return Judged(judgement, forced)
