"""From marks to signed messages: load rows in a few queries, draft, wrap and sign in a thread."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.config import Settings
from orchestrator.delivery.publisher import Outgoing
from orchestrator.delivery.renderers import Draft, announcement_draft, offer_draft
from orchestrator.errors import OperationError
from orchestrator.model.assignment import Assignment
from orchestrator.model.rollout import Rollout
from orchestrator.signer.signer import Signer
from orchestrator.storage import assignments, devices, published, rollouts
from orchestrator.storage.dirty import Mark
from orchestrator.storage.published import Publication, ReleaseFacts
from protocol.directives import Grant
from protocol.errors import ContentError
from protocol.topics import Kind, Topics

log = structlog.get_logger(__name__)

MAX_WRAPS = 50_000
MAX_CONTENT_KEYS = 64


@dataclass(frozen=True, slots=True)
class Rows:
    """What a batch of marks is rendered from: one snapshot of the database."""

    rollouts: dict[str, Rollout]
    releases: dict[str, ReleaseFacts]
    assignments: dict[tuple[str, str], Assignment]
    content_keys: dict[str, str]
    held: dict[str, Publication]


@dataclass(frozen=True, slots=True)
class Drafted:
    """One message before it is signed; ``content_key`` is the device's, where the offer carries a key."""

    kind: Kind
    topic: str
    draft: Draft
    wrapped_key: bytes = b""
    content_key: str = ""


@dataclass
class Directives:
    """Renders and signs announcements and offers."""

    topics: Topics
    settings: Settings
    signer: Signer
    _content_keys: OrderedDict[str, bytes] = field(default_factory=OrderedDict)
    _wraps: OrderedDict[tuple[str, str, str], str] = field(default_factory=OrderedDict)

    def topic_of(self, kind: Kind, key: str) -> str:
        """The topic of a mark; raises ValueError for a key that fits no topic."""
        match kind, key.split("/"):
            case Kind.ANNOUNCE, [rollout]:
                return self.topics.build(kind, rollout=rollout)
            case Kind.OFFER, [device, rollout]:
                return self.topics.build(kind, device=device, rollout=rollout)
        raise ValueError(f"mark {kind.name} {key!r}: not a directive")

    async def load(self, conn: AsyncConnection, broker: str, marks: Sequence[Mark]) -> Rows:
        """Read everything that these marks need, in a fixed number of queries."""
        offers = [tuple(key.split("/")) for kind, key, _ in marks if kind is Kind.OFFER]
        pairs = [(rollout, device) for device, rollout in offers]
        found: dict[str, Rollout] = {}
        for rollout_id in {r for r, _ in pairs} | {key for kind, key, _ in marks if kind is Kind.ANNOUNCE}:
            rollout = await rollouts.get(conn, rollout_id)
            if rollout is not None:
                found[rollout_id] = rollout
        keys = await devices.keys(conn, {device for device, _ in offers})
        return Rows(
            rollouts=found,
            releases=await published.release_facts(conn, {r.release for r in found.values()}),
            assignments=await assignments.get_many(conn, pairs),
            content_keys={device: content for device, (_, content) in keys.items()},
            held=await published.get_many(conn, broker, [self.topic_of(kind, key) for kind, key, _ in marks]),
        )

    def draft(self, marks: Iterable[Mark], rows: Rows, now: datetime) -> list[Drafted]:
        """What must be said, in the order of the marks. Pure."""
        drafted = (
            self._announcement(key, rows, now) if kind is Kind.ANNOUNCE else self._offer(key, rows, now)
            for kind, key, _ in marks
        )
        return [item for item in drafted if item is not None]

    async def sign(self, drafted: Sequence[Drafted]) -> list[Outgoing]:
        """Wrap and sign, in a thread; what cannot be signed is logged and left out.

        Raises:
            OperationError: The signer cannot sign anything.
        """
        return await asyncio.to_thread(self._sign_all, drafted)

    def _announcement(self, key: str, rows: Rows, now: datetime) -> Drafted | None:
        rollout = rows.rollouts.get(key)
        release = rows.releases.get(rollout.release) if rollout else None
        if rollout is None or release is None:
            return None
        draft = announcement_draft(rollout, release.ref, now, self._lease)
        return None if draft is None else Drafted(Kind.ANNOUNCE, self.topic_of(Kind.ANNOUNCE, key), draft)

    def _offer(self, key: str, rows: Rows, now: datetime) -> Drafted | None:
        device, rollout_id = key.split("/")
        rollout, assignment = rows.rollouts.get(rollout_id), rows.assignments.get((rollout_id, device))
        release = rows.releases.get(rollout.release) if rollout else None
        content_key = rows.content_keys.get(device)
        if rollout is None or assignment is None or release is None or content_key is None:
            return None  # a revoked device has no key here and gets no offer
        topic = self.topic_of(Kind.OFFER, key)
        draft = offer_draft(
            assignment,
            rollout,
            release.ref,
            ever_sent=topic in rows.held,
            now=now,
            lease=self._lease,
            grant_s=self.settings.timing.activate_grant_s,
        )
        if draft is None:
            return None
        if draft["grant"] is Grant.CLOSED:
            return Drafted(Kind.OFFER, topic, draft)
        return Drafted(Kind.OFFER, topic, draft, release.wrapped_key, content_key)

    def _sign_all(self, drafted: Sequence[Drafted]) -> list[Outgoing]:
        signed = []
        for item in drafted:
            try:
                signed.append(self._sign(item))
            except (ValueError, ContentError) as error:
                log.error("directive not signed", topic=item.topic, why=str(error)[:300])
        return signed

    def _sign(self, item: Drafted) -> Outgoing:
        if item.kind is Kind.ANNOUNCE:
            done = self.signer.sign_announcement(item.draft)
        else:
            draft = item.draft
            if item.content_key:
                draft = {**draft, "key_wrap": self._wrap(item)}
            done = self.signer.sign_offer(draft)
        return Outgoing(
            kind=item.kind,
            topic=item.topic,
            payload=done.envelope,
            epoch=done.epoch,
            seq=done.seq,
            expires=item.draft["expires"],
        )

    def _wrap(self, item: Drafted) -> str:
        """The content key for this device; made once, since an offer is signed about four times."""
        sha256, device = item.draft["release"].sha256, item.draft["device"]
        name = (sha256, device, item.content_key)
        if name not in self._wraps:
            try:
                wrap = self.signer.wrap(self._open(item.wrapped_key, sha256), item.content_key, sha256, device)
            except OperationError as error:
                raise ValueError(str(error)) from error
            self._wraps[name] = wrap
            if len(self._wraps) > MAX_WRAPS:
                self._wraps.popitem(last=False)
        return self._wraps[name]

    def _open(self, wrapped: bytes, sha256: str) -> bytes:
        if sha256 not in self._content_keys:
            self._content_keys[sha256] = self.signer.open_package_key(wrapped, sha256)
            if len(self._content_keys) > MAX_CONTENT_KEYS:
                self._content_keys.popitem(last=False)
        return self._content_keys[sha256]

    @property
    def _lease(self) -> timedelta:
        return timedelta(seconds=self.settings.timing.lease_s)
