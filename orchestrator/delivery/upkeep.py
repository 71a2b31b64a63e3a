"""What time alone makes necessary: directives whose last signature has expired are renewed or cleared."""

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage import dirty, offered, published
from orchestrator.storage.published import Publication
from orchestrator.storage.tables import rollouts
from protocol.topics import Kind, Topics

MARGIN = timedelta(minutes=5)
"""For clocks that differ: until then a device might still accept what is cleared."""
LIMIT = 200


async def sweep(conn: AsyncConnection, broker: str, topics: Topics, now: datetime) -> list[Publication]:
    """Mark what is still wanted and ran out; returns what may be cleared.

    The engine renews leases at half of their life; what is marked here was missed by it.
    """
    items = [(item, topics.parse(item.topic)) for item in await published.run_out(conn, broker, now - MARGIN, LIMIT)]
    offers = {(topic.device, topic.rollout) for item, topic in items if item.kind is Kind.OFFER}
    wanted_offers = await offered.open_offers(conn, offers)
    announced = {topic.rollout for item, topic in items if item.kind is Kind.ANNOUNCE}
    live = set(
        await conn.scalars(select(rollouts.c.id).where(rollouts.c.id.in_(announced), rollouts.c.ended_at.is_(None)))
    )
    cleared = []
    for item, topic in items:
        if item.kind is Kind.OFFER and (topic.device, topic.rollout) in wanted_offers:
            await dirty.mark(conn, Kind.OFFER, [dirty.offer_key(topic.device, topic.rollout)], now, only=broker)
        elif item.kind is Kind.ANNOUNCE and topic.rollout in live:
            await dirty.mark(conn, Kind.ANNOUNCE, [topic.rollout], now, only=broker)
        elif item.kind in (Kind.OFFER, Kind.ANNOUNCE):
            cleared.append(item)
    return cleared
