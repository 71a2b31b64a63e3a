"""What a person at the device has agreed to or declined: bound to rollout, release and phase, and kept.

An approval of one release never opens the gate for another: the key holds the digest of the sealed manifest. Drop
files let a kiosk's own program answer: ``approvals/<rollout>.approve`` or ``.decline``, for a phase other than the
install ``approvals/<rollout>.<phase>.approve``, taken and deleted.

A person may put an update off, but not for ever: so many times, and so long after the first.
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, TypeAdapter, ValidationError

from device_client.agent.journal import Update
from device_client.durable import write_durably
from device_client.errors import ConflictError
from device_client.gates.approval import Answer as Said
from protocol.clock import rfc3339
from protocol.identifiers import check_id
from protocol.states import Phase, State

Answer = Literal["approve", "decline", "defer"]
MAX_ENTRIES = 64
_SAID = {"approve": Said.APPROVED, "decline": Said.DECLINED, "defer": Said.DEFERRED}


class Decision(BaseModel):
    """One person's answer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    rollout: str
    release_sha256: str
    phase: Phase = Phase.INSTALL
    answer: Answer
    who: str
    at: AwareDatetime
    until: AwareDatetime | None = None


_DECISIONS = TypeAdapter(list[Decision])


class ApprovalBook:
    """The answers given so far, on disk. Blocking: call in a thread."""

    def __init__(self, path: Path, drop_directory: Path) -> None:
        self._path = path
        self._drop = drop_directory
        try:
            self._decisions = _DECISIONS.validate_python(json.loads(path.read_bytes()))
        except (OSError, ValueError, ValidationError):
            self._decisions = []  # lost approvals are asked for again: closed, not open

    def answer(self, rollout: str, manifest_digest: str, phase: Phase) -> tuple[Said, datetime | None]:
        """The last answer on exactly this release and phase, and until when it is deferred."""
        self._take_drop_files(rollout, manifest_digest)
        last = self.last(rollout, manifest_digest, phase)
        return (_SAID[last.answer], last.until) if last else (Said.NONE, None)

    def last(self, rollout: str, manifest_digest: str, phase: Phase) -> Decision | None:
        """The last decision on exactly this release and phase."""
        return next(reversed(self._on(rollout, manifest_digest, phase)), None)

    def approved_by(self, update: Update) -> str:
        """Who agreed to what an update does now, and when: for the report; empty where nobody did."""
        phases = [Phase.INSTALL] if update.state is State.INSTALLING else [Phase.ACTIVATE, Phase.INSTALL]
        decisions = (self.last(update.offer.rollout, update.offer.release.sha256, phase) for phase in phases)
        last = next((decision for decision in decisions if decision is not None), None)
        if last is None or last.answer != "approve":
            return ""
        return f"{last.phase} approved by {last.who} at {rfc3339(last.at)}"

    def record(self, decision: Decision) -> None:
        """Keep an answer; durable when it returns."""
        check_id(decision.rollout, "rollout")
        self._decisions = [*self._decisions, decision][-MAX_ENTRIES:]
        write_durably(self._path, _DECISIONS.dump_json(self._decisions))

    def defer(self, decision: Decision, max_times: int, max_s: float) -> None:
        """Keep a deferral, if there is one left.

        Args:
            decision: With ``until``.
            max_times: How many a release and phase may have.
            max_s: How long after the first was said the last may end.

        Raises:
            ConflictError: It was put off as often, or for as long, as the device's owner allows.
        """
        on = self._on(decision.rollout, decision.release_sha256, decision.phase)
        before = [one for one in on if one.answer == "defer"]
        what = f"defer: the {decision.phase} of rollout {decision.rollout}"
        if len(before) >= max_times:
            raise ConflictError(f"{what} was put off {len(before)} times, at most {max_times}; approve or decline it")
        latest = min((one.at for one in before), default=decision.at) + timedelta(seconds=max_s)
        if decision.until is None or decision.until > latest:
            raise ConflictError(
                f"{what} may be put off until {rfc3339(latest)}, not longer; choose less, or approve or decline it"
            )
        self.record(decision)

    def _on(self, rollout: str, manifest_digest: str, phase: Phase) -> list[Decision]:
        key = (rollout, manifest_digest, phase)
        return [one for one in self._decisions if (one.rollout, one.release_sha256, one.phase) == key]

    def _take_drop_files(self, rollout: str, release_sha256: str) -> None:
        answers: tuple[Answer, ...] = ("approve", "decline")
        names = [(phase, f"{rollout}.{phase}") for phase in (Phase.INSTALL, Phase.ACTIVATE)]
        for phase, name in [(Phase.INSTALL, rollout), *names]:
            for answer in answers:
                file = self._drop / f"{name}.{answer}"
                if file.is_file():
                    self.record(
                        Decision(
                            rollout=rollout,
                            release_sha256=release_sha256,
                            phase=phase,
                            answer=answer,
                            who="drop file",
                            at=datetime.now(UTC),
                        )
                    )
                    file.unlink(missing_ok=True)
