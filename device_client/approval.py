"""What a person at the device has agreed to or declined: bound to rollout, release and phase, and kept.

An approval of one release never opens the gate for another: the key holds the digest of the sealed manifest. Drop
files let a kiosk's own program approve: ``approvals/<rollout>.approve`` or ``.decline``, taken and deleted.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, TypeAdapter, ValidationError

from device_client.durable import write_durably
from device_client.gates.approval import Answer as Said
from protocol.identifiers import check_id
from protocol.states import Phase

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
        self._take_drop_file(rollout, manifest_digest)
        for decision in reversed(self._decisions):
            if (decision.rollout, decision.release_sha256, decision.phase) == (rollout, manifest_digest, phase):
                return _SAID[decision.answer], decision.until
        return Said.NONE, None

    def record(self, decision: Decision) -> None:
        """Keep an answer; durable when it returns."""
        check_id(decision.rollout, "rollout")
        self._decisions = [*self._decisions, decision][-MAX_ENTRIES:]
        write_durably(self._path, _DECISIONS.dump_json(self._decisions))

    def _take_drop_file(self, rollout: str, release_sha256: str) -> None:
        answers: tuple[Answer, ...] = ("approve", "decline")
        for answer in answers:
            file = self._drop / f"{rollout}.{answer}"
            if file.is_file():
                now = datetime.now(UTC)
                self.record(
                    Decision(rollout=rollout, release_sha256=release_sha256, answer=answer, who="drop file", at=now)
                )
                file.unlink(missing_ok=True)
