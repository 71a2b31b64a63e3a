"""Has a person at the device agreed? The book of approvals is kept elsewhere; this only asks it."""

import asyncio
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from device_client.gates.gate import GateContext, Ready, Refuse, Verdict, Wait
from protocol.clock import Clock, rfc3339
from protocol.states import Phase


class Answer(StrEnum):
    """What a person said."""

    NONE = "none"
    APPROVED = "approved"
    DEFERRED = "deferred"
    DECLINED = "declined"


class ApprovalBook(Protocol):
    """Knows what people said. An answer is bound to a rollout, a manifest and a phase."""

    def answer(self, rollout: str, manifest_digest: str, phase: Phase) -> tuple[Answer, datetime | None]:
        """What was said, and until when it is deferred. May block."""
        ...


class ApprovalGate:
    """Open where no approval is demanded, or it was given.

    An approval to install is one to activate as well, until a person says otherwise of activating.
    """

    name = "approval"

    def __init__(self, book: ApprovalBook, clock: Clock, *, each_phase: bool = False) -> None:
        """Ask a book.

        Args:
            book: What people said.
            clock: Deferrals end by it.
            each_phase: Activating needs an approval of its own.
        """
        self._book = book
        self._clock = clock
        self._each_phase = each_phase

    async def judge(self, context: GateContext) -> Verdict:
        """Ask the book."""
        if context.phase is Phase.DOWNLOAD or not context.policy.require_approval:
            return Ready("downloading needs none" if context.phase is Phase.DOWNLOAD else "none is demanded")
        answer, until = await self._ask(context, context.phase)
        if answer is Answer.NONE and context.phase is Phase.ACTIVATE and not self._each_phase:
            answer, until = await self._ask(context, Phase.INSTALL)
        return judge(answer, until, self._clock.now(), context.rollout, context.phase)

    async def _ask(self, context: GateContext, phase: Phase) -> tuple[Answer, datetime | None]:
        return await asyncio.to_thread(self._book.answer, context.rollout, context.manifest_digest, phase)


def judge(answer: Answer, until: datetime | None, now: datetime, rollout: str, phase: Phase = Phase.INSTALL) -> Verdict:
    """Pure: what the answer means at ``now``. A deferral that has run out is no answer."""
    match answer:
        case Answer.APPROVED:
            return Ready("a person at the device agreed")
        case Answer.DECLINED:
            return Refuse("declined", f"a person at the device declined rollout {rollout}")
        case Answer.DEFERRED if until is not None and until > now:
            return Wait("deferred", f"a person deferred it until {rfc3339(until)}", (until - now).total_seconds())
        case Answer.NONE | Answer.DEFERRED:
            words = f"{rollout} --phase activate" if phase is Phase.ACTIVATE else rollout
            return Wait("approval", f"a person at the device must agree: flagship-device approve {words}")
