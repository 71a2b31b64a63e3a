"""What ``flagship-device status`` is answered: what runs, what is under way and why it waits, how the last one ended.

Plain values for JSON; nothing secret. What cannot be read is said, it does not keep the rest from being told.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from device_client.agent.journal import Update
from device_client.agent.orders import was_closed
from device_client.agent.runner import Runner
from device_client.chunk_sources import SourceStanding
from device_client.config import DeviceSettings
from device_client.freshness import Freshness
from device_client.gate_keeper import Judged
from device_client.gates.gate import GateAnswer, Ready, Refuse, Wait
from device_client.installers.installer import Installer
from device_client.last_outcome import LastOutcome
from device_client.refusals import Refusals
from device_client.reporter import Reporter
from device_client.transfer import Fetcher
from device_client.verification.release import Verifier
from protocol.clock import Clock, rfc3339
from protocol.errors import FlagshipError
from protocol.states import State

_JUDGED = frozenset({State.WAITING, State.FETCHED, State.INSTALLED})
MAX_GATE_DETAIL_CHARACTERS = 500


class Checked(Protocol):
    """Who checks now and then whether what runs is intact."""

    def standing(self) -> dict[str, Any]:
        """When it was checked last, and what was found."""
        ...


class LocalStatus:
    """One device's standing, for people at it."""

    def __init__(
        self,
        settings: DeviceSettings,
        runner: Runner,
        installer: Installer,
        verifier: Verifier,
        fetcher: Fetcher,
        reporter: Reporter,
        refusals: Refusals,
        clock: Clock,
        *,
        judged: Mapping[str, Judged],
        last_outcome: LastOutcome,
        integrity: Checked,
        sources: Callable[[], Sequence[SourceStanding]] = lambda: (),
    ) -> None:
        self._settings = settings
        self._runner = runner
        self._installer = installer
        self._verifier = verifier
        self._freshness = Freshness(verifier, runner)
        self._fetcher = fetcher
        self._reporter = reporter
        self._refusals = refusals
        self._clock = clock
        self._judged = judged
        self._last_outcome = last_outcome
        self._integrity = integrity
        self._sources = sources

    async def tell(self) -> dict[str, Any]:
        """All of it."""
        running, trouble = await asyncio.to_thread(self._running)
        outcome = await asyncio.to_thread(self._last_outcome)
        update = self._runner.update
        standing = self._fetcher.progress.standing
        return {
            "device": self._settings.device.id,
            "connected": self._reporter.is_connected,
            "stale": self._freshness.stale,
            "stale_since": rfc3339(since) if (since := self._freshness.stale_since) else None,
            "running": running,
            "trouble": trouble,
            "integrity": self._integrity.standing(),
            "update": update.model_dump(mode="json", exclude={"offer": {"key_wrap"}}) if update else None,
            "gates": self._gates(update),
            "last_outcome": outcome.model_dump(mode="json") if outcome else None,
            "transfer": asdict(standing) if update and (standing.total_bytes or standing.fetched_bytes) else None,
            "source": self._fetcher.source if update else "",
            "sources": [asdict(standing) for standing in self._sources()],
            "announcements": {r: a.action.value for r, a in self._runner.announcements.items()},
            "refused": dict(self._refusals.counts),
            "floors": self._verifier.floors.counters,
        }

    def _running(self) -> tuple[dict[str, str], str]:
        try:
            running = self._installer.running()
        except (FlagshipError, OSError) as error:
            return {}, str(error)[:MAX_GATE_DETAIL_CHARACTERS]
        return ({self._settings.device.component: running.version} if running else {}), ""

    def _gates(self, update: Update | None) -> list[dict[str, Any]]:
        """The last judgement of the open update's present phase, and of each rollout that is announced."""
        open_here = update.offer.rollout if update is not None and not update.is_over else ""
        told: list[dict[str, Any]] = []
        for rollout, judged in self._judged.items():
            if update is not None and rollout == open_here:
                if update.state in _JUDGED and judged.phase is update.phase:
                    told.append(self._told(rollout, judged, is_asked_again=True))
            elif self._is_announced(rollout) and (update is None or rollout != update.offer.rollout):
                told.append(self._told(rollout, judged, is_asked_again=self._reporter.is_connected))
        return told

    def _is_announced(self, rollout: str) -> bool:
        announcement = self._runner.announcements.get(rollout)
        return announcement is not None and not was_closed(announcement, self._runner.offers.get(rollout))

    def _told(self, rollout: str, judged: Judged, *, is_asked_again: bool) -> dict[str, Any]:
        asked_s_ago = self._clock.monotonic() - judged.asked_at
        again_in_s = max(0.0, self._settings.timing.gate_interval_s - asked_s_ago) if is_asked_again else None
        return {
            "rollout": rollout,
            "phase": judged.phase.value,
            "at": rfc3339(judged.at),
            "again_in_s": None if again_in_s is None else round(again_in_s, 1),
            "answers": [_said(answer) for answer in judged.judgement.answers],
        }


def _said(answer: GateAnswer) -> dict[str, Any]:
    match answer.verdict:
        case Ready(detail):
            word, code, retry_after_s = "ready", "", 0.0
        case Wait(code, detail, retry_after_s):
            word = "wait"
        case Refuse(code, detail):
            word, retry_after_s = "refuse", 0.0
    return {
        "gate": answer.gate,
        "verdict": word,
        "code": code,
        "detail": detail[:MAX_GATE_DETAIL_CHARACTERS],
        "retry_after_s": round(retry_after_s, 1),
    }
