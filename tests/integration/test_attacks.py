"""Five attacks from somebody who holds the broker, or even the orchestrator's own keys; each fails by its error code.

The attacker publishes with the orchestrator's certificate, so no access list stands in the way: what refuses is the
device. The release keys are the publisher's, and those the attacker does not have.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from device_client import identity
from device_client.config import DeviceHome, load
from device_client.service import Agent
from orchestrator.config import Home, Settings
from orchestrator.delivery.broker import ManagedBroker
from orchestrator.delivery.broker_access import service_connection
from orchestrator.delivery.delivery import Delivery
from orchestrator.fleet import enrolment
from orchestrator.releases.importer import import_package
from orchestrator.signer.signer import Signer
from orchestrator.storage import devices, releases
from orchestrator.storage.chunk_store import ChunkStore
from orchestrator.storage.database import Database
from orchestrator.storage.releases import ReleaseRecord
from protocol.clock import SystemClock
from protocol.directives import Action, Grant, ReleaseRef
from protocol.errors import ErrorCode
from protocol.manifest import Policy
from protocol.mqtt.connection import Session, connect
from protocol.states import State
from protocol.topics import DELIVERY, Kind, Topics
from tests.integration.small_fleet import (
    FLEET,
    PRODUCT,
    accept,
    installed,
    make_device,
    make_home,
    make_package,
    make_tree,
    short_place,
    until,
)
from tests.stolen_keys import StolenKeys

ROLLOUT = "r-evil"


@dataclass
class Ground:
    """A broker with two published releases, a victim and a bystander that run, and the attacker's session."""

    home: Home
    settings: Settings
    stolen: StolenKeys
    session: Session
    records: dict[str, ReleaseRecord]
    keys: dict[str, str]
    victim: Agent
    victim_home: DeviceHome
    topics: Topics = field(default_factory=lambda: Topics(FLEET))

    def ref(self, version: str, **changes: Any) -> ReleaseRef:
        """A release as an order names it."""
        record = self.records[version]
        values = {"path": record.path, "length": record.length, "sha256": record.sha256, "counter": record.counter}
        return ReleaseRef(**(values | changes))

    def announcement(self, ref: ReleaseRef, action: Action = Action.INSTALL) -> bytes:
        """Signed with the orchestrator's own director key."""
        draft = {"rollout": ROLLOUT, "release": ref, "action": action, "policy": Policy(), "expires": _later()}
        return self.stolen.announcement(draft)

    def offer(self, ref: ReleaseRef, device: str = "victim", version: str = "1.1.0") -> bytes:
        """Signed likewise, with a content key for the device."""
        record = self.records[version]
        wrap = self.stolen.wrap(record.wrapped_key, record.sha256, device, self.keys[device])
        draft = {
            "rollout": ROLLOUT, "device": device, "attempt": 1, "release": ref, "grant": Grant.DOWNLOAD,
            "expires": _later(), "key_wrap": wrap,
        }  # fmt: skip
        return self.stolen.offer(draft)

    async def put(self, kind: Kind, payload: bytes, **values: str) -> None:
        """Publish, retained."""
        await self.session.publish(self.topics.build(kind, **values), payload, qos=1, retain=True)

    def refused(self, code: ErrorCode) -> int:
        """How often the victim refused something by this code."""
        return self.victim.inbox.refusals.counts[code.value]

    @property
    def outcome(self) -> tuple[State, ErrorCode | None] | None:
        """Where the victim's update stands."""
        update = self.victim.runner.update
        return (update.state, update.code) if update else None

    def is_untouched(self) -> bool:
        """Whether the victim runs what it ran."""
        return installed(self.victim_home) == "1.0.0"


@pytest.fixture
async def ground() -> AsyncIterator[Ground]:
    """Everything runs and knows the fleet's trust; nothing was ordered yet."""
    with short_place() as place:
        home, settings = await asyncio.to_thread(make_home, place)
        clock = SystemClock()
        signer, chunks = Signer.open(home, settings), ChunkStore(home.chunks)
        database = await Database.open(home.database)
        broker = ManagedBroker(home, settings)
        tasks = [asyncio.create_task(broker.run())]
        try:
            await broker.ready()
            records = await _publish(home, settings, signer, chunks, database)
            homes = await _enrol(place, home, settings, database)
            agents = [Agent(*load(one.path), clock) for one in homes]
            tasks += [asyncio.create_task(agent.run()) for agent in agents]
            async with database.read() as conn:
                keys = {name: key for name, (_, key) in (await devices.keys(conn, ["victim", "bystander"])).items()}
            async with connect(service_connection(home, settings, DELIVERY, purpose="attacker")) as session:
                await until(lambda: not agents[0]._verifier.stale, "the victim believes the fleet's metadata")
                yield Ground(
                    home, settings, StolenKeys(home.signer, FLEET), session, records, keys, agents[0], homes[0]
                )
        finally:
            for task in reversed(tasks):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await database.close()


async def _publish(
    home: Home, settings: Settings, signer: Signer, chunks: ChunkStore, database: Database
) -> dict[str, ReleaseRecord]:
    """1.1.0 with security counter 5, then 1.0.5 with counter 1: both signed, both listed, both on the broker."""
    delivery = Delivery(database, home, settings, signer, chunks, SystemClock())
    running = asyncio.create_task(delivery.run())
    found = {}
    try:
        for version, counter in (("1.1.0", 5), ("1.0.5", 1)):
            tree = await asyncio.to_thread(make_tree, home.path.parent, version, 200_000)
            package = await asyncio.to_thread(make_package, home, tree, version, counter)
            record = await import_package(package, home, database, chunks, signer, datetime.now(UTC))
            await delivery.publish_release(record.id)
            async with database.read() as conn:
                found[version] = await releases.get(conn, f"{PRODUCT}/{version}")
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    return {version: record for version, record in found.items() if record is not None}


async def _enrol(place: Any, home: Home, settings: Settings, database: Database) -> list[DeviceHome]:
    factory = await asyncio.to_thread(make_tree, place, "1.0.0", 1000)
    made = [await asyncio.to_thread(make_device, place, name, factory) for name in ("victim", "bystander")]
    requests = [identity.make_request(*one) for one in made]
    answers = await enrolment.enrol(database, home, settings, SystemClock(), requests)
    for one, _ in made:
        one.create()
        await asyncio.to_thread(accept, one, answers)
    return [one for one, _ in made]


def _later() -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)


async def test_an_unsigned_release_is_rejected(ground: Ground) -> None:
    """A stolen orchestrator orders a release that the release keys never listed: E_NOT_RELEASED."""
    made_up = ground.ref("1.1.0", path=f"{PRODUCT}/6.6.6/manifest", sha256="6" * 64)
    await ground.put(Kind.ANNOUNCE, ground.announcement(made_up), rollout=ROLLOUT)
    await ground.put(Kind.OFFER, ground.offer(made_up), device="victim", rollout=ROLLOUT)
    await until(lambda: ground.outcome == (State.REJECTED, ErrorCode.NOT_RELEASED), "the victim rejects the release")
    assert ground.is_untouched()


async def test_other_bytes_under_a_listed_name_are_rejected(ground: Ground) -> None:
    """The order names a listed release and other bytes than the release keys did: E_MISMATCH."""
    other = ground.ref("1.1.0", sha256="6" * 64)
    await ground.put(Kind.ANNOUNCE, ground.announcement(other), rollout=ROLLOUT)
    await ground.put(Kind.OFFER, ground.offer(other), device="victim", rollout=ROLLOUT)
    await until(lambda: ground.outcome == (State.REJECTED, ErrorCode.MISMATCH), "the victim rejects the release")
    assert ground.is_untouched()


async def test_a_release_below_the_counter_is_rejected(ground: Ground) -> None:
    """Old software, signed and still listed, whose holes are known: E_ROLLBACK_RELEASE after a commit above it."""
    await asyncio.to_thread(ground.victim._verifier.committed, "app", 5)
    await ground.put(Kind.ANNOUNCE, ground.announcement(ground.ref("1.0.5")), rollout=ROLLOUT)
    await ground.put(Kind.OFFER, ground.offer(ground.ref("1.0.5"), version="1.0.5"), device="victim", rollout=ROLLOUT)
    await until(
        lambda: ground.outcome == (State.REJECTED, ErrorCode.ROLLBACK_RELEASE), "the victim rejects the old release"
    )
    assert ground.is_untouched()


async def test_another_devices_offer_is_refused(ground: Ground) -> None:
    """An offer to the bystander, copied to the victim's topic byte for byte: E_SCOPE, and no machine moves."""
    await ground.put(Kind.ANNOUNCE, ground.announcement(ground.ref("1.1.0")), rollout=ROLLOUT)
    await ground.put(
        Kind.OFFER, ground.offer(ground.ref("1.1.0"), device="bystander"), device="victim", rollout=ROLLOUT
    )
    await until(lambda: ground.refused(ErrorCode.SCOPE) == 1, "the victim refuses the offer")
    assert ground.outcome is None
    assert ground.is_untouched()


async def test_a_tampered_chunk_is_refused(ground: Ground) -> None:
    """One flipped bit in every chunk: E_CHUNK, nothing is installed; with the right bytes back the download goes on."""
    chunks = ChunkStore(ground.home.chunks)
    cids = [path.name for path in ground.home.chunks.glob("*/*")]
    pieces = {p for record in ground.records.values() for p in record.info["pieces"]}
    originals = {cid: chunks.get(cid) for cid in cids if cid not in pieces}
    for cid, data in originals.items():
        await ground.put(Kind.CHUNK, bytes([data[0] ^ 1]) + data[1:], cid=cid)
    await ground.put(Kind.ANNOUNCE, ground.announcement(ground.ref("1.1.0")), rollout=ROLLOUT)
    await ground.put(Kind.OFFER, ground.offer(ground.ref("1.1.0")), device="victim", rollout=ROLLOUT)
    await until(lambda: ground.refused(ErrorCode.CHUNK) >= 2, "the victim refuses chunks")
    assert ground.outcome == (State.DOWNLOADING, None)
    for cid, data in originals.items():
        await ground.put(Kind.CHUNK, data, cid=cid)
    await until(lambda: ground.outcome == (State.WAITING, None), "the download ends with the right bytes")
    assert ground.is_untouched(), "without a grant nothing is installed"


async def test_a_replayed_announcement_is_refused(ground: Ground) -> None:
    """The operator put the rollout on hold; the attacker plays the older go-ahead again: E_REPLAY, the hold stays."""
    go_ahead = ground.announcement(ground.ref("1.1.0"))
    await ground.put(Kind.ANNOUNCE, go_ahead, rollout=ROLLOUT)
    announced = ground.victim.runner.announcements
    await until(lambda: ROLLOUT in announced and announced[ROLLOUT].action is Action.INSTALL, "the go-ahead is heard")
    await ground.put(Kind.ANNOUNCE, ground.announcement(ground.ref("1.1.0"), Action.HOLD), rollout=ROLLOUT)
    await until(lambda: announced[ROLLOUT].action is Action.HOLD, "the hold is heard")
    await ground.put(Kind.ANNOUNCE, go_ahead, rollout=ROLLOUT)
    await until(lambda: ground.refused(ErrorCode.REPLAY) == 1, "the victim refuses the older announcement")
    assert announced[ROLLOUT].action is Action.HOLD
