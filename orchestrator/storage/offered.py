"""Which offers stand on brokers, held against who shall have one."""

from collections.abc import Collection

from sqlalchemy import exists, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage.tables import assignments, devices, published, rollouts
from protocol.topics import Kind


async def unsent_offers(conn: AsyncConnection, broker: str, prefix: str, rollout: str) -> list[str]:
    """Devices of a rollout that have an open grant and whose offer never reached the broker.

    Args:
        prefix: The offer topic up to the device.
    """
    topic = literal(prefix) + assignments.c.device + literal("/") + assignments.c.rollout
    rows = await conn.scalars(
        select(assignments.c.device).where(
            assignments.c.rollout == rollout,
            assignments.c.grant.in_(["download", "activate"]),
            ~exists().where(published.c.broker == broker, published.c.topic == topic),
        )
    )
    return list(rows)


async def reached(conn: AsyncConnection, rollout: str) -> set[str]:
    """Devices whose offer of a rollout stands on some broker. Looks at every offer that does: for once a rollout."""
    suffix = f"/{rollout}"
    topics = await conn.scalars(
        select(published.c.topic).where(
            published.c.kind == Kind.OFFER.name, func.substr(published.c.topic, -len(suffix)) == suffix
        )
    )
    return {topic.split("/")[-2] for topic in topics}


async def open_offers(conn: AsyncConnection, keys: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of (device, rollout) whose offer is still needed: not closed, device enrolled, rollout not ended."""
    found: set[tuple[str, str]] = set()
    wanted = sorted({rollout for _, rollout in keys})
    for rollout in wanted:
        ids = [device for device, of in keys if of == rollout]
        rows = await conn.scalars(
            select(assignments.c.device)
            .join(rollouts, rollouts.c.id == assignments.c.rollout)
            .join(devices, devices.c.id == assignments.c.device)
            .where(
                devices.c.state == "enrolled",
                assignments.c.rollout == rollout,
                assignments.c.device.in_(ids),
                assignments.c.grant.in_(["download", "activate"]),
                rollouts.c.ended_at.is_(None),
            )
        )
        found |= {(device, rollout) for device in rows}
    return found
