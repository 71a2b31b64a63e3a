"""What the signer remembers by itself, so that an old or a foreign database cannot talk it out of a refusal.

Halted rollouts, revoked devices, and which release a rollout brings. Durable before anything is signed that follows
from it. ``high-water.json`` notes the version, so that an old copy is noticed.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import ConflictError, NotFoundError, OperationError
from orchestrator.private_files import replace_private
from orchestrator.signer.high_water import HighWater
from protocol.identifiers import DigestText, IdText

MAX_ROLLOUTS = 10_000
"""Releases of rollouts that are remembered; the oldest is forgotten, a halt never."""
MAX_BYTES = 64 * 2**20


class Halt(BaseModel):
    """A latch on a rollout. ``final``: it was aborted, nothing lifts it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    halts: Annotated[int, Field(ge=0)]
    at: AwareDatetime
    reason: Annotated[str, Field(max_length=500)] = ""
    final: bool = False


class AuditMark(BaseModel):
    """The last entry of the audit log that was signed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entry: Annotated[int, Field(ge=0)] = 0
    digest: DigestText = "0" * 64


class Facts(BaseModel):
    """``facts.json``.

    Attributes:
        rollouts: sha256 of the release that a rollout brings, in this epoch.
        revoked: Device -> why.
        audit: An audit log that ends before it, or has another entry there, was written anew.
    """

    model_config = ConfigDict(extra="forbid")

    version: Annotated[int, Field(ge=0)] = 0
    rollouts: dict[IdText, DigestText] = {}
    halted: dict[IdText, Halt] = {}
    revoked: dict[IdText, str] = {}
    audit: AuditMark = AuditMark()


class FactsFile:
    """The facts, saved before they are acted on. Not safe from several threads: the signer holds its lock."""

    def __init__(self, path: Path, marks: HighWater) -> None:
        """Read the file.

        Raises:
            NotFoundError: It is gone, though something was signed before.
            ConflictError: It is an old copy.
            OperationError: It is damaged.
        """
        self._path = path
        self._marks = marks
        self._facts = _load(path, is_new=marks.order[1] == 0 and marks.facts == 0)
        if self._facts.version < marks.facts:
            raise ConflictError(
                f"{path}: version {self._facts.version}, expected at least {marks.facts}: the file is an old copy, "
                "and halts or revocations are missing in it; restore the newest"
            )

    def release_of(self, rollout: str) -> str | None:
        """sha256 of the release that a rollout was signed for first."""
        return self._facts.rollouts.get(rollout)

    def halt_of(self, rollout: str) -> Halt | None:
        """The latch on a rollout."""
        return self._facts.halted.get(rollout)

    def is_revoked(self, device: str) -> bool:
        """Whether a device is never offered anything again."""
        return device in self._facts.revoked

    @property
    def halted(self) -> dict[str, Halt]:
        """Every latch."""
        return dict(self._facts.halted)

    @property
    def audit(self) -> AuditMark:
        """The last entry of the audit log that was signed."""
        return self._facts.audit

    def note_audit(self, entry: int, digest: str) -> None:
        """From now on an audit log that does not have this entry is another one."""
        mark = AuditMark(entry=entry, digest=digest)
        if mark != self._facts.audit:
            self._save(audit=mark)

    def bind(self, rollout: str, sha256: str) -> None:
        """From now on the rollout brings this release."""
        bound = {**self._facts.rollouts, rollout: sha256}
        while len(bound) > MAX_ROLLOUTS:
            del bound[next(iter(bound))]
        self._save(rollouts=bound)

    def unbind_all(self) -> None:
        """A new epoch: ids of rollouts may be given again."""
        if self._facts.rollouts:
            self._save(rollouts={})

    def halt(self, rollout: str, halts: int, now: datetime, reason: str, *, final: bool) -> None:
        """Latch a rollout; a later halt of it replaces the latch, an earlier one or the same changes nothing."""
        known = self._facts.halted.get(rollout)
        if known is not None and known.halts >= halts and known.final >= final:
            return
        before = (known.halts, known.final) if known else (0, False)
        halt = Halt(halts=max(halts, before[0]), at=now, reason=reason[:500], final=final or before[1])
        self._save(halted={**self._facts.halted, rollout: halt})

    def lift(self, rollout: str) -> None:
        """End a halt."""
        self._save(halted={name: halt for name, halt in self._facts.halted.items() if name != rollout})

    def revoke(self, devices: dict[str, str]) -> int:
        """Add devices; returns how many are new."""
        news = {device: why[:200] for device, why in devices.items() if device not in self._facts.revoked}
        if news:
            self._save(revoked={**self._facts.revoked, **news})
        return len(news)

    def _save(self, **changes: object) -> None:
        facts = self._facts.model_copy(update={**changes, "version": self._facts.version + 1})
        data = facts.model_dump_json().encode()
        if len(data) > MAX_BYTES:
            raise OperationError(f"{self._path}: more than {MAX_BYTES} B of revoked devices and halts")
        replace_private(self._path, data)
        self._facts = facts  # the file is ahead of the marks, never behind
        self._marks.note_facts(facts.version)


def read_audit_mark(path: Path) -> AuditMark | None:
    """What the signer remembers of the audit log, for a verifier beside it; None where it cannot be read."""
    try:
        return Facts.model_validate_json(path.read_bytes()).audit
    except (OSError, ValueError, RecursionError):
        return None


def _load(path: Path, *, is_new: bool) -> Facts:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise OperationError(f"{path}: expected at most {MAX_BYTES} B; restore it")
        return Facts.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        if is_new:
            return Facts()
        raise NotFoundError(
            f"{path}: missing; without it halted rollouts and revoked devices would be offered to again. Restore it, "
            'or write {"version": N} with N at least the facts of high-water.json, then halt and revoke again'
        ) from error
    except (OSError, ValueError, ValidationError, RecursionError) as error:
        raise OperationError(f"{path}: expected the signer's facts as JSON; restore it") from error
