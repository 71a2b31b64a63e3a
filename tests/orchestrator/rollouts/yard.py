"""A database with devices, a release and rollouts; devices speak through the door that ingest uses."""

import json
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from orchestrator.config import Settings, TimingSettings
from orchestrator.model.assignment import Assignment
from orchestrator.model.device import Device, DeviceState
from orchestrator.model.plan import RolloutSpec, StageSpec
from orchestrator.model.rollout import Rollout
from orchestrator.rollouts import creating, operations
from orchestrator.rollouts.controller import Controller
from orchestrator.storage import assignments, devices, dirty, events, groups, published, releases, rollouts
from orchestrator.storage.database import Database
from orchestrator.storage.engine_tables import scope_counts
from orchestrator.storage.published import Publication
from orchestrator.storage.releases import PUBLISHED, ReleaseRecord
from orchestrator.storage.reports import Applied, Incoming, apply_batch
from protocol.clock import ManualClock
from protocol.manifest import ReleaseInfo
from protocol.reports import Readiness, Reason, StateReport, outcome_digest
from protocol.states import Phase, State
from protocol.topics import Kind, Topics
from tests.orchestrator.databases import open_new

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
RELEASE = "gateway/1.1.0"
LEASE_S = 100.0
ALL = (StageSpec(name="all", percent=100),)
LOW_BATTERY = Reason(gate="power", code="battery_low")


def plan(*stages: StageSpec, **rules: Any) -> RolloutSpec:
    """A plan of these stages (one of all devices where there is none)."""
    return RolloutSpec(**{"release": RELEASE, "stages": list(stages or ALL), **rules})


@dataclass
class Yard:
    """What a rollout needs, on a clock that stands still."""

    db: Database
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    woken: int = 0
    _seq: int = 0

    def __post_init__(self) -> None:
        """Make the controller."""
        self.restart()

    def restart(self) -> None:
        """A new engine on the same database."""
        settings = Settings(timing=TimingSettings(lease_s=LEASE_S))
        self.controller = Controller(self.db, self.clock, settings, self._wake)

    async def order(self, rollout: str, verb: str, reason: str = "why", **more: Any) -> Rollout:
        """A person orders something."""
        return await operations.order(self.db, self.clock, rollout, operations.Order(verb=verb, reason=reason, **more))

    def _wake(self) -> None:
        self.woken += 1

    async def add_devices(self, ids: Iterable[str], group: str = "", **changes: Any) -> list[str]:
        """Enrolled gateways on rev-a that run 1.0.0."""
        known = list(ids)
        async with self.db.begin() as conn:
            for name in known:
                values = {"product": "gateway", "hardware": "rev-a", "components": {"app": "1.0.0"}, **changes}
                device = Device(id=name, enrolled_at=NOW, **values)
                await devices.insert(conn, device, report_key={"keyid": name}, content_key="x")
            if group:
                await groups.insert_group(conn, group, NOW)
                await groups.add_members(conn, group, known)
        return known

    async def add_release(
        self, state: str = PUBLISHED, name: str = RELEASE, component: str = "app", counter: int = 1
    ) -> None:
        """A release, as an import leaves it."""
        product, version = name.split("/")
        info = ReleaseInfo(
            product=product, version=version, component=component, hardware=["rev-a"], counter=counter, space_bytes=1,
            pieces=["0" * 64], chunk_count=1,
        )  # fmt: skip
        record = ReleaseRecord(
            id=name, product=product, version=version, component=component, path=f"{name}/manifest", length=1,
            sha256="1" * 64, counter=counter, info=info.model_dump(mode="json"), wrapped_key=b"", image_bytes=1,
            chunk_bytes=1, state=state, imported_at=NOW,
        )  # fmt: skip
        async with self.db.begin() as conn:
            await releases.insert_release(conn, record, {})

    async def run(self, spec: RolloutSpec | None = None) -> str:
        """Create and start a rollout; returns its id."""
        rollout = await creating.create(self.db, self.clock, spec or plan())
        await creating.start(self.db, self.clock, rollout.id)
        return rollout.id

    async def set_device_state(self, device: str, state: DeviceState) -> None:
        """Revoke or retire a device, as an operator would."""
        async with self.db.begin() as conn:
            await conn.exec_driver_sql("UPDATE devices SET state = ? WHERE id = ?", (state.value, device))

    async def ready(self, rollout: str, device: str, *reasons: Reason, **changes: Any) -> Applied:
        """A device says which download gates are open; all of them unless reasons are given."""
        values = {"phase": Phase.DOWNLOAD, "ready": not reasons, "reasons": list(reasons), **changes}
        return await self._take(device, Readiness(**self._head(device, rollout), **values))

    async def report(self, rollout: str, device: str, state: State, **changes: Any) -> Applied:
        """A device says where its update stands; ``fetched`` without reasons asks for the next grant."""
        if state is State.FETCHED:
            changes = {"phase": Phase.INSTALL, **changes}
        return await self._take(
            device, StateReport(**self._head(device, rollout), **{"attempt": 1, "state": state, **changes})
        )

    async def deliver(self, rollout: str, *ids: str) -> None:
        """These devices' offers stand on the broker, as delivery records it."""
        topics = [Topics("harbour").build(Kind.OFFER, device=name, rollout=rollout) for name in ids]
        items = [Publication(kind=Kind.OFFER, topic=topic, digest="0" * 64) for topic in topics]
        async with self.db.begin() as conn:
            await published.record(conn, "main", items)

    def next_seq(self) -> int:
        """Higher than every one before."""
        self._seq += 1
        return self._seq

    def _head(self, device: str, rollout: str) -> dict[str, Any]:
        return {
            "fleet": "harbour", "issued": self.clock.now(), "device": device, "session": 1, "seq": self.next_seq(),
            "rollout": rollout, "nonce": f"nonce-{self._seq:04}",
        }  # fmt: skip

    async def _take(self, device: str, report: Readiness | StateReport) -> Applied:
        digest = outcome_digest(report.model_dump_json().encode())
        async with self.db.begin() as conn:
            return await apply_batch(conn, [Incoming(device, report, digest)], self.clock.now())

    async def look(self) -> float:
        """One look of the controller, on counts that are right before and after it."""
        idle_s = await self.controller.look()
        await self.check_counts()
        return idle_s

    async def look_only(self) -> float:
        """One look of the controller."""
        return await self.controller.look()

    async def check_counts(self) -> None:
        """Counts are what a recount finds."""
        async with self.db.read() as conn:
            for rollout in await rollouts.page(conn):
                assert await assignments.load_counts(conn, rollout.id) == await assignments.recount(conn, rollout.id)
            rows = await conn.execute(
                select(scope_counts).where((scope_counts.c.held != 0) | (scope_counts.c.waiting != 0))
            )
            found = {(row.scope, row.rollout): (row.held, row.waiting) for row in rows}
            assert found == await assignments.recount_scopes(conn)

    async def rollout(self, rollout: str) -> Rollout:
        """A rollout as it is stored."""
        async with self.db.read() as conn:
            found = await rollouts.get(conn, rollout)
        assert found is not None
        return found

    async def stages(self, rollout: str) -> list[str]:
        """States of the stages."""
        async with self.db.read() as conn:
            return [stage.state.value for stage in await rollouts.load_stages(conn, rollout)]

    async def sizes(self, rollout: str) -> list[int]:
        """Members by stage."""
        async with self.db.read() as conn:
            return [stage.members for stage in await rollouts.load_stages(conn, rollout)]

    async def all_rollouts(self) -> list[str]:
        """Ids of every rollout."""
        async with self.db.read() as conn:
            return [found.id for found in await rollouts.page(conn)]

    async def runs(self, device: str, version: str) -> None:
        """What a device's inventory says from now on."""
        async with self.db.begin() as conn:
            await conn.exec_driver_sql(
                "UPDATE devices SET components = ? WHERE id = ?", (json.dumps({"app": version}), device)
            )

    async def row(self, rollout: str, device: str) -> Assignment:
        """A device's place in a rollout."""
        async with self.db.read() as conn:
            found = await assignments.get(conn, rollout, device)
        assert found is not None
        return found

    async def rows(self, rollout: str) -> list[Assignment]:
        """Everybody's place."""
        async with self.db.read() as conn:
            return await assignments.of_rollout(conn, rollout)

    async def offered(self, rollout: str) -> set[str]:
        """Devices that were ever offered something."""
        return {row.device for row in await self.rows(rollout) if row.offered_at is not None}

    async def marks(self, kind: Kind) -> set[str]:
        """Keys of this kind that are marked; takes the marks away."""
        async with self.db.begin() as conn:
            found = await dirty.take(conn, "main", [kind], 1000)
            await dirty.done(conn, "main", found)
        return {key for _, key, _ in found}

    async def happenings(self, rollout: str) -> list[str]:
        """Kinds of the events of a rollout, in order."""
        async with self.db.read() as conn:
            return [event["kind"] for event in await events.page(conn, rollout=rollout, limit=1000)]


@asynccontextmanager
async def open_yard() -> AsyncIterator[Yard]:
    """A yard with a published release, in a database of its own."""
    with tempfile.TemporaryDirectory(prefix="yard-") as directory:
        db = await open_new(Path(directory) / "db.sqlite")
        try:
            yard = Yard(db)
            await yard.add_release()
            yield yard
        finally:
            await db.close()
