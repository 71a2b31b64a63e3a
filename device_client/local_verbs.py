"""What the local socket's verbs do: status, approve, defer, decline, update."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from device_client.agent.runner import Runner
from device_client.approval import Answer, ApprovalBook, Decision
from device_client.config import DeviceSettings
from device_client.errors import ConflictError, NotFoundError, UsageError
from device_client.local_status import LocalStatus
from device_client.medium_desk import MediumDesk
from protocol.clock import Clock, rfc3339
from protocol.directives import Announcement, Offer
from protocol.states import Phase

log = structlog.get_logger(__name__)

MAX_DEFERRAL = timedelta(days=30)
_DECIDED = {Phase.INSTALL.value, Phase.ACTIVATE.value}


class LocalVerbs:
    """Answers people and programs on the device."""

    def __init__(
        self,
        settings: DeviceSettings,
        runner: Runner,
        book: ApprovalBook,
        clock: Clock,
        medium: MediumDesk,
        status: LocalStatus,
    ) -> None:
        self._settings = settings
        self._runner = runner
        self._book = book
        self._clock = clock
        self._medium = medium
        self._status = status

    async def answer(self, verb: str, arguments: dict[str, Any], who: str) -> dict[str, Any]:
        """The local socket's verbs."""
        match verb:
            case "status":
                return await self._status.tell()
            case "approve" | "decline" | "defer":
                return await self._decide(verb, arguments, who)
            case "update":
                return await self._update(arguments, who)
            case _:
                raise UsageError(f"verb {verb[:40]!r}: expected status, approve, defer, decline or update")

    async def _decide(self, verb: Answer, arguments: dict[str, Any], who: str) -> dict[str, Any]:
        update = self._runner.update
        rollout = str(arguments.get("rollout") or (update.offer.rollout if update else ""))
        known: Offer | Announcement | None = self._runner.offers.get(rollout) or self._runner.announcements.get(rollout)
        if known is None and not rollout:
            raise NotFoundError(f"{verb}: no update is open here; see 'flagship-device status'")
        if known is None:
            raise NotFoundError(
                f"rollout {rollout[:64]!r}: none of this name is open here; see 'flagship-device status'"
            )
        if update and update.offer.rollout == rollout and update.is_over:
            raise ConflictError(f"rollout {rollout}: it is over here ({update.state}); nothing to {verb}")
        now = self._clock.now()
        decision = Decision(
            rollout=rollout,
            release_sha256=known.release.sha256,
            phase=_phase(arguments),
            answer=verb,
            who=who,
            at=now,
            until=_until(arguments, now) if verb == "defer" else None,
        )
        if verb == "defer":
            gates = self._settings.gates
            await asyncio.to_thread(self._book.defer, decision, gates.max_deferrals, gates.max_deferral_s)
        else:
            await asyncio.to_thread(self._book.record, decision)
        log.info("decision recorded", rollout_id=rollout, phase=decision.phase.value, answer=verb, who=who)
        return {"rollout": rollout, "answer": verb, "who": who, "phase": decision.phase.value}

    async def _update(self, arguments: dict[str, Any], who: str) -> dict[str, Any]:
        """A medium's offers go the way of every other; what keeps them waiting, ``status`` says."""
        handed = await self._medium.hand_in(Path(str(arguments.get("medium", ""))))
        log.info("medium handed in", who=who, rollouts=sorted(handed.taken))
        return {"taken": {rollout: self._said(offer) for rollout, offer in handed.taken.items()}} | {
            "refused": {rollout: why[:500] for rollout, why in handed.refused.items()}
        }

    def _said(self, offer: Offer) -> str:
        update = self._runner.update
        if update is not None and not update.is_over and update.offer.rollout != offer.rollout:
            return f"taken; waits until rollout {update.offer.rollout} is over here"
        if offer.offline_until is None:
            return "taken; it was not made for a medium, so this device asks before it installs"
        if not self._settings.gates.allow_offline:
            return "taken; waits for a link: [gates] allow_offline is not set in device.toml"
        return f"taken; acts unasked until {rfc3339(offer.offline_until)}"


def _phase(arguments: dict[str, Any]) -> Phase:
    phase = arguments.get("phase") or Phase.INSTALL.value
    if phase not in _DECIDED:
        raise UsageError(f"phase {str(phase)[:40]!r}: expected {' or '.join(sorted(_DECIDED))}")
    return Phase(phase)


def _until(arguments: dict[str, Any], now: datetime) -> datetime:
    try:
        seconds = float(arguments.get("seconds", 3600))
    except (TypeError, ValueError) as error:
        raise UsageError("defer: expected a number of seconds") from error
    if not 0 < seconds <= MAX_DEFERRAL.total_seconds():
        raise UsageError(f"defer: expected up to {MAX_DEFERRAL.days} days")
    return now + timedelta(seconds=seconds)
