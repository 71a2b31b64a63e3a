"""What is written when a batch of directives was sent: what the broker has, what is done, what follows from it."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.delivery.directives import SignedBatch
from orchestrator.storage import assignments, dirty, offered, published
from orchestrator.storage.dirty import Mark
from protocol.topics import Kind, Topics


async def record_batch(
    conn: AsyncConnection, broker: str, topics: Topics, batch: SignedBatch, done: Sequence[Mark], now: datetime
) -> None:
    """Write it, in the caller's transaction."""
    await published.record(conn, broker, [item.publication(keep_payload=True) for item in batch.messages])
    await dirty.done(conn, broker, done)
    for rollout in batch.announced:
        await _mark_withheld(conn, broker, topics, rollout, now, lifted=rollout in batch.lifted)


async def _mark_withheld(
    conn: AsyncConnection, broker: str, topics: Topics, rollout: str, now: datetime, *, lifted: bool
) -> None:
    """Offers that a halt kept back are looked at again whenever the rollout is announced on this broker.

    After a halt all open ones, on every broker: those that were signed in it may lack the content key.
    """
    if lifted:
        waiting = await assignments.granted(conn, rollout)
    else:
        waiting = await offered.unsent_offers(conn, broker, f"{topics.root}/offer/", rollout)
    keys = [dirty.offer_key(device, rollout) for device in waiting]
    await dirty.mark(conn, Kind.OFFER, keys, now, only=None if lifted else broker)
