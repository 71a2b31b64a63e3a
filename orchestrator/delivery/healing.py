"""A broker that was wiped, replaced or fell behind is made right again.

``status/sync`` says how far it surely is. What was published later is marked dirty, to be rendered and signed from
rows as they are now. Chunks are left to the audit.
"""

from collections import defaultdict
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage import dirty, published
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
    keys: defaultdict[Kind, list[str]] = defaultdict(list)
    for item in items:
        values = topics.parse(item.topic).values
        keys[item.kind].append("/".join(values.values()))
    keys.pop(Kind.CHUNK, None)
    for kind, marked in keys.items():
        await dirty.mark(conn, kind, marked, now)
    return last if items else up_to
