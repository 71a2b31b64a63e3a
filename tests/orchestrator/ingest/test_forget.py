"""A device that is closed is not heard from that instant on, whatever ingest had cached."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from orchestrator.config import Home, Settings
from orchestrator.fleet import closing
from orchestrator.ingest.ingest import Ingest
from orchestrator.model.device import Device
from orchestrator.storage import devices
from orchestrator.storage.database import Database
from protocol.clock import ManualClock
from protocol.envelopes import encode, sign
from protocol.mqtt.connection import Message
from protocol.reports import INVENTORY_TYPE, Inventory
from protocol.topics import Kind, Topics

NOW = datetime(2026, 11, 24, tzinfo=UTC)
CLOCK = ManualClock(NOW)


class Ear:
    """Ingest without a broker: messages are handed in."""

    def __init__(self, db: Database, home: Path) -> None:
        self.db = db
        self.ingest = Ingest(db, Home(home), Settings(fleet="fleet"), CLOCK, lambda: None, lambda: None)

    async def enrol(self, signer: CryptoSigner) -> None:
        """d1 under this key."""
        key = {**signer.public_key.to_dict(), "keyid": signer.public_key.keyid}
        device = Device(id="d1", product="gateway", hardware="hw", enrolled_at=NOW)
        async with self.db.begin() as conn:
            await devices.insert(conn, device, report_key=key, content_key="")

    async def hears(self, signer: CryptoSigner, session: int) -> bool:
        """Whether a report that this key signed is believed."""
        report = Inventory(
            fleet="fleet", issued=NOW, device="d1", session=session, seq=1, product="gateway", hardware="hw",
            agent="1", labels={"session": str(session)},
        )  # fmt: skip
        topic = Topics("fleet").build(Kind.INVENTORY, device="d1")
        await self.ingest.take([Message(topic, sign(encode(report), INVENTORY_TYPE, signer), retain=False, qos=1)])
        async with self.db.read() as conn:
            found = await devices.get(conn, "d1")
        return found is not None and found.labels == {"session": str(session)}


@pytest.fixture
async def ear(tmp_path: Path) -> AsyncIterator[Ear]:
    """An empty database and who listens for it."""
    db = await Database.open(tmp_path / "flagship.sqlite")
    try:
        yield Ear(db, tmp_path)
    finally:
        await db.close()


async def test_reports_are_ignored_at_once(ear: Ear) -> None:
    """N5: also while its key is still cached, and after it was dropped."""
    signer = CryptoSigner.generate_ecdsa()
    await ear.enrol(signer)
    assert await ear.hears(signer, 1)
    await closing.revoke(ear.db, CLOCK, "d1", "stolen")
    assert not await ear.hears(signer, 2)
    ear.ingest.keys.forget("d1")
    assert not await ear.hears(signer, 3)
    assert ear.ingest.rejects.counts == {"not_enrolled": 1, "E_SCOPE": 1}


async def test_a_retired_id_is_heard_under_its_new_key_only(ear: Ear) -> None:
    """The cache would go on with the old one."""
    old, new = CryptoSigner.generate_ecdsa(), CryptoSigner.generate_ecdsa()
    await ear.enrol(old)
    assert await ear.hears(old, 5)
    await closing.retire(ear.db, CLOCK, "d1", "sold")
    ear.ingest.keys.forget("d1")
    await ear.enrol(new)
    assert not await ear.hears(old, 6)
    assert await ear.hears(new, 1)
