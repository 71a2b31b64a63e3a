"""Signed once: what was signed for one broker goes to the others as it is, with the same order.

So a device that changes brokers meets no two orders for one thing, and none that is older than what it has. A message
is taken again only when nothing that it says has changed since: its mark is no later than the one that it was signed
for, and what would be signed now says the same. After a halt nothing that was signed before it is taken again.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from pydantic import ValidationError

from orchestrator.delivery.publisher import Outgoing
from orchestrator.signer.seam import AnnouncementRequest, OfferRequest, Request
from orchestrator.storage.dirty import Mark
from orchestrator.storage.published import Publication
from protocol.directives import ANNOUNCEMENT_TYPE, OFFER_TYPE, Announcement, Grant, Offer
from protocol.envelopes import parse
from protocol.errors import EnvelopeError
from protocol.topics import RULES, Kind

log = structlog.get_logger(__name__)

MAX_KEPT = 5_000
"""Newest signed messages in memory: brokers that are up are a batch or two apart. Older ones are in the database."""


@dataclass(frozen=True, slots=True)
class Drafted:
    """One message before it is signed: its mark, its topic, and what the signer is asked.

    Attributes:
        may_repeat: False where it must be signed anew whatever was signed before: its rollout is halted.
    """

    mark: Mark
    topic: str
    request: Request
    may_repeat: bool = True

    @property
    def kind(self) -> Kind:
        """Announcement or offer."""
        return self.mark[0]


class SignedOnce:
    """Shared by all deliveries of a fleet; hold ``lock`` from reading rows until what was signed is kept."""

    def __init__(self, brokers: Sequence[str] = ()) -> None:
        self.brokers = tuple(brokers)
        self.lock = asyncio.Lock()
        self._kept: OrderedDict[str, tuple[Request, Outgoing]] = OrderedDict()

    @property
    def is_shared(self) -> bool:
        """Whether there is more than one broker; for one, everything is signed when it is marked."""
        return len(self.brokers) > 1

    def knows(self, topic: str) -> bool:
        """Whether the newest message of a topic is in memory."""
        return topic in self._kept

    def keep(self, item: Drafted, message: Outgoing) -> None:
        """Remember what was signed."""
        if self.is_shared:
            self._kept[item.topic] = (item.request, message)
            self._kept.move_to_end(item.topic)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)

    def find(self, item: Drafted, stored: Publication | None, epoch: int, now: datetime) -> Outgoing | None:
        """What was signed for another broker and still says just this; None where it must be signed.

        Args:
            stored: The newest that any broker has of the topic.
            epoch: Under which the signer signs now.
        """
        if not self.is_shared or not item.may_repeat:
            return None
        kept = self._kept.get(item.topic)
        if kept is not None:
            request, message = kept
            same = _words(request) == _words(item.request)
        elif stored is not None and stored.payload is not None:
            found = _read(item, stored)
            if found is None:
                return None
            message, same = found
        else:
            return None
        is_current = message.epoch == epoch and message.since is not None and message.since >= item.mark[2]
        return message if same and is_current and _lasts(message, item, now) else None


def _words(request: Request) -> tuple[object, ...]:
    """What a request says, without when it runs out."""
    draft = {name: value for name, value in request.draft.items() if name != "expires"}
    match request:
        case AnnouncementRequest():
            return draft, request.halts, request.reason
        case OfferRequest():
            return draft, request.sealed_key, request.content_key


def _lasts(message: Outgoing, item: Drafted, now: datetime) -> bool:
    """Whether at least half of the time is left that it would have if it were signed now."""
    expires = message.expires
    return expires is not None and (expires - now) * 2 >= item.request.draft["expires"] - now


def _read(item: Drafted, stored: Publication) -> tuple[Outgoing, bool] | None:
    """A message from its bytes, and whether it says what is drafted. Ours: no signature is checked."""
    raw = stored.payload or b""
    model: type[Announcement | Offer] = Announcement if item.kind is Kind.ANNOUNCE else Offer
    payload_type = ANNOUNCEMENT_TYPE if item.kind is Kind.ANNOUNCE else OFFER_TYPE
    try:
        found = model.model_validate_json(parse(raw, RULES[item.kind].max_bytes, payload_type).payload)
        draft: Mapping[str, Any] = item.request.draft
        signers = ("fleet", "epoch", "seq", "issued", "key_wrap", "expires")
        own = {name: getattr(found, name) for name in signers if hasattr(found, name)}
        same = model.model_validate({**draft, **own}) == found
    except (ValidationError, EnvelopeError) as error:
        log.error("stored directive not readable", topic=item.topic, why=type(error).__name__)
        return None
    if isinstance(found, Offer) and found.grant is not Grant.CLOSED and found.key_wrap is None:
        same = False  # signed in a halt: it lacks the key
    message = Outgoing(
        kind=item.kind,
        topic=item.topic,
        payload=raw,
        epoch=stored.epoch,
        seq=stored.seq,
        expires=found.expires,
        since=stored.since,
    )
    return message, same
