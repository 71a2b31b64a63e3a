"""From marks to signed messages: load rows in a few queries, draft, and have a batch signed in one request."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.config import Settings
from orchestrator.delivery.publisher import Outgoing
from orchestrator.delivery.renderers import announcement_draft, is_latched, offer_draft
from orchestrator.delivery.signed_once import Drafted, SignedOnce
from orchestrator.model.assignment import Assignment
from orchestrator.model.rollout import Rollout
from orchestrator.signer.seam import AnnouncementRequest, OfferRequest, Refusal, Refused, Signed, SigningRoom
from orchestrator.storage import assignments, devices, fleet_latch, published, releases, rollouts
from orchestrator.storage.dirty import Mark
from orchestrator.storage.published import Publication
from orchestrator.storage.releases import ReleaseFacts
from protocol.directives import Grant
from protocol.topics import Kind, Topics

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rows:
    """What a batch of marks is rendered from: one snapshot of the database.

    Attributes:
        held: Topics that this broker has.
        signed: The newest that any broker has of a topic, where there are several brokers.
        epoch: Under which the signer signs.
        fleet_halted: Somebody halted everything.
    """

    rollouts: dict[str, Rollout]
    releases: dict[str, ReleaseFacts]
    assignments: dict[tuple[str, str], Assignment]
    content_keys: dict[str, str]
    held: set[str]
    signed: dict[str, Publication] = field(default_factory=dict)
    epoch: int = 0
    fleet_halted: bool = False


@dataclass(frozen=True, slots=True)
class SignedBatch:
    """What became of a batch of drafts.

    Attributes:
        messages: To be sent, in the order of the marks.
        later: Marks whose turn has not come: the signer's limit is reached.
        retry_s: When it will have come; 0.0 when there are none.
        refused: Why the signer does not announce a rollout, by its id.
        announced: Rollouts whose announcement is among the messages.
        lifted: Rollouts that go on after a halt.
    """

    messages: list[Outgoing] = field(default_factory=list)
    later: list[Mark] = field(default_factory=list)
    retry_s: float = 0.0
    refused: dict[str, str] = field(default_factory=dict)
    announced: list[str] = field(default_factory=list)
    lifted: list[str] = field(default_factory=list)


@dataclass
class Directives:
    """Renders announcements and offers, and has them signed, once for all brokers."""

    topics: Topics
    settings: Settings
    signer: SigningRoom
    once: SignedOnce = field(default_factory=SignedOnce)

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
        if not marks:
            return Rows({}, {}, {}, {}, set())
        offers = [tuple(key.split("/")) for kind, key, _ in marks if kind is Kind.OFFER]
        pairs = [(rollout, device) for device, rollout in offers]
        found: dict[str, Rollout] = {}
        for rollout_id in {r for r, _ in pairs} | {key for kind, key, _ in marks if kind is Kind.ANNOUNCE}:
            rollout = await rollouts.get(conn, rollout_id)
            if rollout is not None:
                found[rollout_id] = rollout
        topics = [self.topic_of(kind, key) for kind, key, _ in marks]
        elsewhere, epoch = {}, 0
        if self.once.is_shared:
            asked = [topic for topic in topics if not self.once.knows(topic)]
            elsewhere = await published.signed(conn, self.once.brokers, asked)
            epoch = (await published.highest_order(conn))[0]
        return Rows(
            rollouts=found,
            releases=await releases.release_facts(conn, {r.release for r in found.values()}),
            assignments=await assignments.get_many(conn, pairs),
            content_keys=await devices.content_keys(conn, {device for device, _ in offers}),
            held=await published.held(conn, broker, topics),
            signed=elsewhere,
            epoch=epoch,
            fleet_halted=await fleet_latch.get(conn) is not None,
        )

    def draft(self, marks: Iterable[Mark], rows: Rows, now: datetime) -> list[Drafted]:
        """What must be said, in the order of the marks. Pure."""
        drafted = (
            self._announcement(mark, rows, now) if mark[0] is Kind.ANNOUNCE else self._offer(mark, rows, now)
            for mark in marks
        )
        return [item for item in drafted if item is not None]

    async def sign(self, drafted: Sequence[Drafted], rows: Rows, now: datetime) -> SignedBatch:
        """Wrap and sign what was not signed for another broker; in a thread and one request.

        What is refused for good is logged and left out.

        Raises:
            SignerAwayError: The signer does not answer; nothing was lost.
            OperationError: The signer cannot sign anything.
        """
        if not drafted:
            return SignedBatch()
        known = [self.once.find(item, rows.signed.get(item.topic), rows.epoch, now) for item in drafted]
        asked = [item for item, found in zip(drafted, known, strict=True) if found is None]
        answers = iter(await asyncio.to_thread(self.signer.sign, [item.request for item in asked]) if asked else [])
        return self._sorted(drafted, [found or next(answers) for found in known])

    def _announcement(self, mark: Mark, rows: Rows, now: datetime) -> Drafted | None:
        rollout = rows.rollouts.get(mark[1])
        release = rows.releases.get(rollout.release) if rollout else None
        if rollout is None or release is None:
            return None
        draft = announcement_draft(rollout, release.ref, now, self._lease, fleet_halted=rows.fleet_halted)
        if draft is None:
            return None
        request = AnnouncementRequest(draft, rollout.halts, rollout.reason)
        return Drafted(mark, self.topic_of(Kind.ANNOUNCE, mark[1]), request)

    def _offer(self, mark: Mark, rows: Rows, now: datetime) -> Drafted | None:
        device, rollout_id = mark[1].split("/")
        rollout, assignment = rows.rollouts.get(rollout_id), rows.assignments.get((rollout_id, device))
        release = rows.releases.get(rollout.release) if rollout else None
        if rollout is None or assignment is None or release is None:
            return None
        topic = self.topic_of(Kind.OFFER, mark[1])
        draft = offer_draft(
            assignment,
            rollout,
            release.ref,
            ever_sent=topic in rows.held,
            now=now,
            lease=self._lease,
            grant_s=self.settings.timing.activate_grant_s,
            fleet_halted=rows.fleet_halted,
        )
        if draft is None:
            return None
        may_repeat = not is_latched(rollout, fleet_halted=rows.fleet_halted)
        if draft["grant"] is Grant.CLOSED:
            return Drafted(mark, topic, OfferRequest(draft), may_repeat)
        content_key = rows.content_keys.get(device)
        if content_key is None:
            return None  # revoked, retired or two under one id: no key is wrapped, whatever the row says
        return Drafted(mark, topic, OfferRequest(draft, release.wrapped_key, content_key), may_repeat)

    def _sorted(self, drafted: Sequence[Drafted], answers: Sequence[Outgoing | Signed | Refusal]) -> SignedBatch:
        batch, retry_s = SignedBatch(), 0.0
        for item, answer in zip(drafted, answers, strict=True):
            rollout = item.request.draft["rollout"]
            match answer:
                case Outgoing() | Signed():
                    message = _outgoing(item, answer) if isinstance(answer, Signed) else answer
                    self.once.keep(item, message)
                    batch.messages.append(message)
                    if item.kind is Kind.ANNOUNCE:
                        batch.announced.append(rollout)
                    if isinstance(answer, Signed) and answer.lifted:
                        batch.lifted.append(rollout)
                case Refusal(code=Refused.LATER):
                    batch.later.append(item.mark)
                    retry_s = max(retry_s, answer.retry_s)
                case Refusal():
                    log.error("directive not signed", topic=item.topic, code=answer.code, why=answer.why[:300])
                    if item.kind is Kind.ANNOUNCE:
                        batch.refused[rollout] = answer.why
        return replace(batch, retry_s=retry_s)

    @property
    def _lease(self) -> timedelta:
        return timedelta(seconds=self.settings.timing.lease_s)


def _outgoing(item: Drafted, signed: Signed) -> Outgoing:
    return Outgoing(
        kind=item.kind,
        topic=item.topic,
        payload=signed.envelope,
        epoch=signed.epoch,
        seq=signed.seq,
        expires=item.request.draft["expires"],
        since=item.mark[2],
    )
