"""A broker that was wiped, replaced or fell behind is made right again.

``status/sync`` says how far it surely is. What was published later is marked dirty for it, to be rendered from rows as
they are now, or sent as it is where another broker has just that; what was cleared later is cleared again. Chunks are
left to the audit.
"""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.delivery.publisher import Outgoing, send_all
from orchestrator.storage import dirty, published, removals
from orchestrator.storage.database import Database
from protocol.mqtt.connection import Session
from protocol.topics import Kind, Topics

PAGE = 500
TRUST = frozenset({Kind.TRUST_ROOT, Kind.TRUST_BUNDLE, Kind.TRUST_TIMESTAMP})
"""Published together and in order."""


async def mark_later(
    conn: AsyncConnection, broker: str, topics: Topics, now: datetime, *, after: int, up_to: int
) -> int:
    """Mark one page of what was published after a serial.

    Returns:
        The serial of its last topic; ``up_to`` or more when nothing is left.
    """
    items, last = await published.page(conn, broker, after=after, up_to=up_to, limit=PAGE)
    keyed = [(item.kind, "/".join(topics.parse(item.topic).values.values()), item.since or now) for item in items]
    await dirty.repeat(conn, broker, [mark for mark in keyed if mark[0] is not Kind.CHUNK])
    return last if items else up_to


async def clear_again(db: Database, session: Session, broker: str, *, after: int) -> int:
    """Clear what was cleared on this broker after a serial; returns how much. Before anything else is sent to it.

    Raises:
        ConnectionLost: Some may have gone out; the marker of the broker does not move.
    """
    count = 0
    while True:
        async with db.read() as conn:
            gone = await removals.later(conn, broker, after=after, limit=PAGE)
        if not gone:
            return count
        await send_all(session, [Outgoing(kind=kind, topic=topic, payload=b"") for _, kind, topic in gone])
        after, count = gone[-1][0], count + len(gone)
