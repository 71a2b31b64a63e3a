"""The room with the keys: director, timestamp, and the content keys of packages. Typed requests only.

    form -> rules (what the signer itself knows) -> rate -> wrap -> number -> sign -> log -> answer

Nothing else signs on the orchestrator's side, and no content key leaves. What a request lacks (fleet, epoch, seq,
issued) is filled in here, so that no caller can choose a number. Calls compute and now and then fsync: run them in a
thread, in batches.
"""

import hashlib
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError
from tuf.api.metadata import Metadata, MetaFile, Timestamp
from tuf.api.serialization.json import JSONSerializer

from orchestrator.config import Home, Settings
from orchestrator.errors import ConflictError, NotFoundError, UsageError
from orchestrator.model.audit import AUDIT_HEAD_TYPE
from orchestrator.signer.audit_heads import next_head
from orchestrator.signer.content_keys import ContentKeys
from orchestrator.signer.facts import FactsFile
from orchestrator.signer.high_water import HighWater
from orchestrator.signer.key_ring import Keys, open_keys
from orchestrator.signer.rate import RateLimit
from orchestrator.signer.request_entries import entry_of, sha256_of
from orchestrator.signer.request_log import Entry, RequestLog
from orchestrator.signer.rules import judge_announcement, judge_offer
from orchestrator.signer.seam import (
    MAX_BATCH,
    MAX_REVOKED_AT_ONCE,
    AnnouncementRequest,
    Begun,
    OfferRequest,
    Order,
    Refusal,
    Refused,
    Request,
    Signed,
)
from protocol.clock import Clock, SystemClock
from protocol.directives import ANNOUNCEMENT_TYPE, OFFER_TYPE, Action, Announcement, Grant, Offer
from protocol.envelopes import encode, sign
from protocol.errors import ContentError

TIMESTAMP_LIFE = timedelta(days=7)


class Signer:
    """``SigningRoom`` with the keys in this process. Safe from several threads: one request at a time."""

    def __init__(
        self, settings: Settings, keys: Keys, marks: HighWater, facts: FactsFile, log: RequestLog, clock: Clock
    ) -> None:
        self._fleet = settings.fleet
        self._keys = keys
        self._marks = marks
        self._facts = facts
        self._log = log
        self._clock = clock
        self._offline_max = timedelta(seconds=settings.signer.offline_max_s)
        self._rate = RateLimit(settings.signer.offers_per_minute, settings.signer.offers_burst)
        self._content_keys = ContentKeys(keys.package)
        self._lock = threading.Lock()

    @classmethod
    def open(cls, home: Home, settings: Settings, clock: Clock | None = None) -> "Signer":
        """Load the keys of a home and what its signer knows. Blocking; ``alone_in`` keeps a second one out.

        Raises:
            OperationError: A key, the marks, the facts or the log are missing, unreadable or readable by others.
        """
        folder = home.signer
        marks = HighWater(folder / "high-water.json")
        return cls(
            settings,
            open_keys(folder, home.trust),
            marks,
            FactsFile(folder / "facts.json", marks),
            RequestLog(folder / "requests.log", settings.signer.log_bytes, settings.signer.log_files),
            clock or SystemClock(),
        )

    def close(self) -> None:
        """Make the log durable."""
        with self._lock:
            self._log.close()

    def begin(self, stored: Order, timestamp: int) -> Begun:
        """See ``SigningRoom``; a database that is older than what was signed goes on under a new epoch."""
        with self._lock:
            self._marks.check_above(stored, timestamp)
            last = self._last_order()
            raised = stored < last and last[1] > 0
            if raised:
                self._facts.unbind_all()
                epoch = self._marks.raise_epoch()
                self._note("epoch", epoch=epoch, seq=last[1], stored_epoch=stored[0], stored_seq=stored[1])
            halted = {name: halt.reason or "halted" for name, halt in self._facts.halted.items() if not halt.final}
            return Begun(self._last_order(), raised, halted)

    def sign(self, requests: Sequence[Request]) -> list[Signed | Refusal]:
        """See ``SigningRoom``."""
        if len(requests) > MAX_BATCH:
            raise ValueError(f"at most {MAX_BATCH} requests at once, found {len(requests)}")
        with self._lock:
            now = self._clock.now().replace(microsecond=0)
            answers = [self._answer(request, now) for request in requests]
            at = now.isoformat()
            self._write([entry_of(one, answer, at) for one, answer in zip(requests, answers, strict=True)])
            return answers

    def use_director(self, listed: Sequence[str], *, switch: bool = True) -> str:
        """See ``SigningRoom``."""
        with self._lock:
            chosen = self._keys.ring.choose("director", listed)
            if switch and chosen.public_key != self._keys.director.public_key:
                self._note("director", keyid=chosen.public_key.keyid)
                self._keys = self._keys._replace(director=chosen)
            return chosen.public_key.keyid

    def bump_timestamp(self, snapshot_version: int, listed: Sequence[str] = ()) -> bytes:
        """See ``SigningRoom``."""
        with self._lock:
            if listed:
                self._keys = self._keys._replace(timestamp=self._keys.ring.choose("timestamp", listed))
            now = self._clock.now().replace(microsecond=0)
            version = self._marks.next_timestamp()
            metadata = Metadata(
                Timestamp(version=version, expires=now + TIMESTAMP_LIFE, snapshot_meta=MetaFile(snapshot_version))
            )
            metadata.sign(self._keys.timestamp)
            data = metadata.to_bytes(JSONSerializer(compact=True))
            self._note("timestamp", version=version, snapshot=snapshot_version, digest=sha256_of(data))
            return data

    def highest_timestamp(self) -> int:
        """See ``SigningRoom``."""
        return self._marks.timestamp

    def unseal(self, sealed_key: bytes, sealed: bytes) -> bytes:
        """See ``SigningRoom``; the release is what these bytes hash to, whatever the caller calls them."""
        sha256 = hashlib.sha256(sealed).hexdigest()
        with self._lock:
            packed = self._content_keys.unseal(sealed_key, sealed, sha256)
            self._note("unseal", release=sha256)
            return packed

    def revoke(self, devices: Sequence[str], reason: str) -> None:
        """See ``SigningRoom``."""
        if len(devices) > MAX_REVOKED_AT_ONCE:
            raise ValueError(f"at most {MAX_REVOKED_AT_ONCE} devices at once, found {len(devices)}")
        with self._lock:
            news = [device for device in devices if not self._facts.is_revoked(device)]
            self._facts.revoke(dict.fromkeys(news, reason))
            at = self._now_text()
            self._write([{"kind": "revoke", "at": at, "device": device, "why": reason} for device in news])

    def sign_head(self, entry: int, digest: str) -> bytes:
        """See ``SigningRoom``; the mark is durable before the signature leaves."""
        with self._lock:
            try:
                head = next_head(self._facts.audit, self._fleet, entry, digest, self._clock.now())
            except ConflictError as error:
                self._note("audit_head", entry=entry, digest=digest, refused=Refused.MISFIT.value, why=str(error))
                raise
            self._facts.note_audit(entry, digest)
            self._note("audit_head", entry=entry, digest=digest)
            return sign(encode(head), AUDIT_HEAD_TYPE, self._keys.director)

    def lift(self, rollout: str, reason: str) -> None:
        """See ``SigningRoom``."""
        with self._lock:
            halt = self._facts.halt_of(rollout)
            if halt is None:
                raise NotFoundError(f"rollout {rollout}: is not halted in the signer")
            if halt.final:
                raise ConflictError(f"rollout {rollout}: was aborted; nothing lifts that, make a new rollout")
            if not reason.strip():
                raise UsageError(f"rollout {rollout}: was halted ({halt.reason}); lift it with --reason")
            self._facts.lift(rollout)
            self._note("lift", rollout=rollout, why=reason)

    @property
    def director_keyid(self) -> str:
        """Key id that the offline targets role must list for the director."""
        return self._keys.director.public_key.keyid

    def _answer(self, request: Request, now: datetime) -> Signed | Refusal:
        if "key_wrap" in request.draft:
            return Refusal(Refused.MISFIT, "draft: carries a key wrap; wraps are made by the signer")
        model = Announcement if isinstance(request, AnnouncementRequest) else Offer
        try:
            message = model.model_validate({**request.draft, "fleet": self._fleet, "issued": now, "epoch": 1, "seq": 1})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])[:80]
            return Refusal(Refused.MISFIT, f"{model.__name__}: {place}: {first['msg'][:120]}")
        match request, message:
            case AnnouncementRequest(), Announcement():
                return self._announce(request, message, now)
            case OfferRequest(), Offer():
                return self._offer(request, message, now)
        raise AssertionError("a request and its message are of one kind")

    def _announce(self, request: AnnouncementRequest, message: Announcement, now: datetime) -> Signed | Refusal:
        rollout = message.rollout
        halt, bound = self._facts.halt_of(rollout), self._facts.release_of(rollout)
        refusal = judge_announcement(
            message,
            halt,
            bound,
            halts=request.halts,
            reason=request.reason,
            now=now,
            offline_max=self._offline_max,
        )
        if refusal is not None:
            return refusal
        if bound is None:
            self._facts.bind(rollout, message.release.sha256)
        if message.action is not Action.INSTALL:
            self._facts.halt(rollout, request.halts, now, request.reason, final=message.action is Action.ABORT)
        elif halt is not None:
            self._facts.lift(rollout)
        lifted = halt is not None and message.action is Action.INSTALL
        return self._signed(message, ANNOUNCEMENT_TYPE, {}, lifted=lifted)

    def _offer(self, request: OfferRequest, message: Offer, now: datetime) -> Signed | Refusal:
        halt, bound = self._facts.halt_of(message.rollout), self._facts.release_of(message.rollout)
        revoked = self._facts.is_revoked(message.device)
        refusal = judge_offer(message, halt, bound, is_revoked=revoked, now=now, offline_max=self._offline_max)
        if refusal is not None:
            return refusal
        filled: dict[str, Any] = {}
        if message.grant is not Grant.CLOSED:
            try:
                wrap = self._wrap(request, message, is_halted=halt is not None)
            except ContentError as error:
                return Refusal(Refused.KEY, f"device {message.device}: {error.detail}")
            except ValueError:
                return Refusal(
                    Refused.MISFIT, f"device {message.device}: its content key is not an X25519 key; enrol it again"
                )
            # After the wrap, which is kept: the next try costs a signature alone.
            wait_s = self._rate.take(self._clock.monotonic())
            if wait_s:
                return Refusal(Refused.LATER, "more offers than the signer's limit allows", wait_s)
            filled["key_wrap"] = wrap
        if bound is None:
            self._facts.bind(message.rollout, message.release.sha256)
        return self._signed(message, OFFER_TYPE, filled)

    def _signed(
        self, message: Announcement | Offer, payload_type: str, filled: dict[str, Any], *, lifted: bool = False
    ) -> Signed:
        epoch, seq = self._marks.next_order()  # only now: what is refused uses up no number
        payload = encode(message.model_copy(update={"epoch": epoch, "seq": seq, **filled}))
        return Signed(sign(payload, payload_type, self._keys.director), epoch, seq, lifted)

    def _wrap(self, request: OfferRequest, message: Offer, *, is_halted: bool) -> str | None:
        """In a halt none is made: a device that was never offered the release gets no key; one that was has its own."""
        sha256, device = message.release.sha256, message.device
        if is_halted:
            return self._content_keys.known_wrap(sha256, device, request.content_key)
        return self._content_keys.wrap(request.sealed_key, sha256, device, request.content_key)

    def _last_order(self) -> Order:
        """The highest (epoch, seq) that was signed; where the log is gone, the highest that may have been."""
        return self._log.head.order if self._log.head.n else self._marks.order

    def _note(self, kind: str, **fields: str | int) -> None:
        self._write([{"kind": kind, "at": self._now_text(), **fields}])

    def _write(self, entries: Sequence[Entry]) -> None:
        if entries:
            self._log.append(entries, self._last_order())

    def _now_text(self) -> str:
        return self._clock.now().replace(microsecond=0).isoformat()
