"""Rows for tests that need a database and no broker: a fleet's topics as delivery records them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.model.assignment import Assignment
from orchestrator.model.device import Device, DeviceState
from orchestrator.model.plan import RolloutSpec, StageSpec
from orchestrator.model.rollout import RolloutState
from orchestrator.storage import assignments, devices, dirty, published, rollouts
from orchestrator.storage.database import Database
from orchestrator.storage.published import Publication
from protocol.topics import Kind, Topics

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOPICS = Topics("fleet")
SPEC = RolloutSpec(release="gateway/1.1.0", stages=[StageSpec(name="all", percent=100)])


async def add_member(db: Database, rollout: str, device: str, grant: str = "download", **state: Any) -> None:
    """One rollout with one device in it."""
    async with db.begin() as conn:
        known = Device(id=device, product="gateway", hardware="hw", enrolled_at=NOW, **state)
        await devices.insert(conn, known, report_key={}, content_key="")
        await rollouts.insert(conn, rollout, SPEC, RolloutState.RUNNING, NOW)
        await assignments.insert_all(
            conn, [Assignment(rollout=rollout, device=device, stage=0, place=0, grant=grant, offered_at=NOW)]
        )


async def add_published(db: Database, kind: Kind, expires: datetime | None = None, **values: str) -> str:
    """A topic that the broker holds."""
    topic = TOPICS.build(kind, **values)
    async with db.begin() as conn:
        await published.record(conn, "main", [Publication(kind=kind, topic=topic, digest="0" * 64, expires=expires)])
    return topic


async def take_marks(db: Database) -> set[tuple[Kind, str]]:
    """What is marked; the marks are taken away."""
    async with db.begin() as conn:
        found = await dirty.take(conn, "main", list(Kind), 10_000)
        await dirty.done(conn, "main", found)
    return {(kind, key) for kind, key, _ in found}


LONG_AGO = NOW - timedelta(hours=1)
REVOKED = {"state": DeviceState.REVOKED}
