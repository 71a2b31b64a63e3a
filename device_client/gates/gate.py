"""What a gate is, and how all of them are asked.

A wait is never a failure. Every gate is asked every time, so that a person sees all that is missing at once.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from device_client.gates.policy import WindowSet
from protocol.manifest import Policy
from protocol.reports import Reason
from protocol.states import Phase

log = structlog.get_logger(__name__)
DEADLINE_S = 30.0
FORCEABLE = frozenset({"in_use", "logind", "memory", "load", "temperature", "interval", "window", "hook"})
"""Gates that the owner may let an update pass by after a deadline. Never: order, power, disk, way back, and what a
person must agree to or pay for."""
MAX_REASONS = 28
"""A report holds 32; who answers announcements adds some of its own."""


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
Verdicts = Verdict | Sequence[Verdict]
"""A gate that looks at several things says of each why it is shut; none is open."""


def unknown(what: str, *, waits: bool) -> Verdict:
    """What a gate answers that cannot see its figure: open, unless the owner said ``[gates] unknown = "wait"``.

    Args:
        what: What cannot be read and which limit stands, in one clause.
    """
    return Wait("unknown", f'{what}; [gates] unknown = "wait" keeps this shut') if waits else Ready()


@dataclass(frozen=True, slots=True)
class GateContext:
    """What is to be done.

    Attributes:
        need_bytes: Bytes that will still be written below the device's home.
        policy: The strictest of manifest, announcement and configuration.
        manifest_digest: sha256 hex of the sealed manifest; what an approval is bound to.
        version: Of the release, for hooks.
        window_sets: Of manifest and announcement; beside the device's own, each of them must be open.
    """

    phase: Phase
    rollout: str
    need_bytes: int
    policy: Policy
    manifest_digest: str
    window_sets: tuple[WindowSet, ...] = ()
    version: str = ""


class Gate(Protocol):
    """One readiness question. One that may take longer than ``DEADLINE_S`` has an attribute ``deadline_s``."""

    @property
    def name(self) -> str:
        """The word that reports carry."""
        ...

    async def judge(self, context: GateContext) -> Verdicts:
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
    def may_be_forced(self) -> bool:
        """Whether nothing is shut but gates that only spare people and machine, and none refuses."""
        return not self.refusals and all(reason.gate in FORCEABLE for reason in self.reasons)

    @property
    def retry_after_s(self) -> float:
        """When the first closed gate wants to be asked again; 0 when none said."""
        return min((reason.retry_after_s for reason in self.reasons if reason.retry_after_s), default=0)


async def judge_all(gates: Sequence[Gate], context: GateContext, deadline_s: float = DEADLINE_S) -> Judgement:
    """Ask every gate at once. One that breaks or does not answer in time is closed, not open."""
    answers = await asyncio.gather(*(_judge(gate, context, deadline_s) for gate in gates))
    reasons: list[Reason] = []
    refusals: list[Reason] = []
    each = list(_each(gates, answers))
    for gate, verdict in each:
        match verdict:
            case Ready():
                pass
            case Wait(code, detail, retry_after_s):
                reasons.append(_reason(gate.name, code, detail, retry_after_s))
            case Refuse(code, detail):
                refusals.append(_reason(gate.name, code, detail, 0))
    shown = tuple(GateAnswer(gate.name, verdict) for gate, verdict in each)
    return Judgement((*refusals, *reasons)[:MAX_REASONS], tuple(refusals[:MAX_REASONS]), shown)


def _each(gates: Sequence[Gate], answers: Sequence[Verdicts]) -> Iterator[tuple[Gate, Verdict]]:
    for gate, answer in zip(gates, answers, strict=True):
        verdicts: Sequence[Verdict] = (answer,) if isinstance(answer, Ready | Wait | Refuse) else answer
        yield from ((gate, verdict) for verdict in verdicts or (Ready(),))  # that has nothing to say is open


async def _judge(gate: Gate, context: GateContext, deadline_s: float) -> Verdicts:
    deadline_s = getattr(gate, "deadline_s", deadline_s)
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
