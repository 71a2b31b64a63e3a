"""What a gate is, and how all of them are asked.

A wait is never a failure. Every gate is asked every time, so that a person sees all that is missing at once.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from device_client.gates.policy import WindowSet
from protocol.manifest import Policy
from protocol.reports import Reason
from protocol.states import Phase

log = structlog.get_logger(__name__)
DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True)
class Ready:
    """The gate is open.

    Attributes:
        detail: By how much, with the figure and the limit, for people; it decides nothing, so it is not compared.
    """

    detail: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now. ``retry_after_s`` is 0 where the change will be noticed by itself."""

    code: str
    detail: str
    retry_after_s: float = 0


@dataclass(frozen=True, slots=True)
class Refuse:
    """Not at all for this rollout."""

    code: str
    detail: str


Verdict = Ready | Wait | Refuse


@dataclass(frozen=True, slots=True)
class GateContext:
    """What is to be done.

    Attributes:
        need_bytes: Bytes that will still be written below the device's home.
        policy: The strictest of manifest, announcement and configuration.
        manifest_digest: sha256 hex of the sealed manifest; what an approval is bound to.
        window_sets: Of manifest and announcement; beside the device's own, each of them must be open.
    """

    phase: Phase
    rollout: str
    need_bytes: int
    policy: Policy
    manifest_digest: str
    window_sets: tuple[WindowSet, ...] = ()


class Gate(Protocol):
    """One readiness question."""

    @property
    def name(self) -> str:
        """The word that reports carry."""
        ...

    async def judge(self, context: GateContext) -> Verdict:
        """Answer for one phase of one rollout."""
        ...


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """What one gate said."""

    gate: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Judgement:
    """The answers of all gates.

    Attributes:
        reasons: Every gate that is not open, refusals included.
        refusals: Those that will not open for this rollout.
        answers: Every gate's, the open ones' too, in the order in which they were asked.
    """

    reasons: tuple[Reason, ...] = ()
    refusals: tuple[Reason, ...] = ()
    answers: tuple[GateAnswer, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether every gate is open."""
        return not self.reasons

    @property
    def retry_after_s(self) -> float:
        """When the first closed gate wants to be asked again; 0 when none said."""
        return min((reason.retry_after_s for reason in self.reasons if reason.retry_after_s), default=0)


async def judge_all(gates: Sequence[Gate], context: GateContext, deadline_s: float = DEADLINE_S) -> Judgement:
    """Ask every gate at once. One that breaks or does not answer in time is closed, not open."""
    verdicts = await asyncio.gather(*(_judge(gate, context, deadline_s) for gate in gates))
    reasons: list[Reason] = []
    refusals: list[Reason] = []
    for gate, verdict in zip(gates, verdicts, strict=True):
        match verdict:
            case Ready():
                pass
            case Wait(code, detail, retry_after_s):
                reasons.append(_reason(gate.name, code, detail, retry_after_s))
            case Refuse(code, detail):
                refusals.append(_reason(gate.name, code, detail, 0))
    answers = tuple(GateAnswer(gate.name, verdict) for gate, verdict in zip(gates, verdicts, strict=True))
    return Judgement((*refusals, *reasons), tuple(refusals), answers)


async def _judge(gate: Gate, context: GateContext, deadline_s: float) -> Verdict:
    try:
        async with asyncio.timeout(deadline_s):
            return await gate.judge(context)
    except TimeoutError:
        return Wait("no_answer", f"gate {gate.name} did not answer within {deadline_s:g} s", deadline_s)
    except Exception as error:  # a gate's bug must not open it, nor end the agent
        log.exception("gate_failed", gate=gate.name, phase=context.phase)
        return Wait("broken", f"gate {gate.name} failed: {type(error).__name__}", deadline_s)


def _reason(gate: str, code: str, detail: str, retry_after_s: float) -> Reason:
    return Reason(gate=gate, code=code, detail=detail[:500], retry_after_s=retry_after_s)
