"""Putting messages on a broker: many at once within a bound, and proven by reading back where that matters."""

import asyncio
import hashlib
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import structlog

from orchestrator.delivery.readback import WINDOW, ReadBack
from orchestrator.errors import UnreachableError
from orchestrator.storage.published import Publication
from protocol.mqtt.connection import Session
from protocol.topics import RULES, Kind

log = structlog.get_logger(__name__)

CONCURRENCY = 20
"""Publishes in flight; beyond it aiomqtt becomes slower, not faster."""
TRIES = 4
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One message to a topic; an empty payload clears it."""

    kind: Kind
    topic: str
    payload: bytes
    epoch: int = 0
    seq: int = 0
    expires: datetime | None = None
    since: datetime | None = None

    def publication(self, *, keep_payload: bool) -> Publication:
        """What is recorded of it."""
        return Publication(
            kind=self.kind,
            topic=self.topic,
            digest=hashlib.sha256(self.payload).hexdigest(),
            epoch=self.epoch,
            seq=self.seq,
            payload=self.payload if keep_payload else None,
            expires=self.expires,
            since=self.since,
        )


async def send_all(session: Session, items: Sequence[Outgoing]) -> None:
    """Publish; every message was acknowledged when this returns.

    Raises:
        ConnectionLost: Some may have gone out.
        PublishRefused: The broker refused one.
    """
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:  # one iterator for all: each takes the next
            rule = RULES[item.kind]
            await session.publish(item.topic, item.payload, qos=rule.qos, retain=rule.retained)

    await together([work() for _ in range(min(CONCURRENCY, len(items)))])


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run to the end of all; the first failure ends the others and is raised as it is, not in a group."""
    workers = [asyncio.ensure_future(part) for part in work]
    try:
        return await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def send_proven(session: Session, readback: ReadBack, items: Mapping[str, Outgoing], timeout_s: float) -> int:
    """Publish up to ``WINDOW`` messages by topic and read each back; what did not come back is sent again.

    Returns:
        Payload bytes that were sent.

    Raises:
        ConnectionLost: Some may have gone out.
        UnreachableError: The broker does not retain what it acknowledges.
    """
    if len(items) > WINDOW:
        raise ValueError(f"at most {WINDOW} messages at once")
    missing, sent = dict(items), 0
    if not missing:
        return 0
    for attempt in range(TRIES):
        await send_all(session, list(missing.values()))
        sent += sum(len(item.payload) for item in missing.values())
        held = await readback.fetch(session, list(missing), timeout_s * (attempt + 1))
        missing = {topic: item for topic, item in missing.items() if held.get(topic) != item.payload}
        if not missing:
            return sent
        log.warning("messages not retained", topics=len(missing), attempt=attempt + 1)
    topic = next(iter(missing))
    raise UnreachableError(
        f"broker: {len(missing)} of {len(items)} messages were acknowledged but not delivered back, {topic} first; "
        "check its access list, its memory and its queue limits"
    )
