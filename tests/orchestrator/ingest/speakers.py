"""Devices that speak to ingest: real keys, real envelopes, whatever mistakes a test wants in them."""

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel
from securesystemslib.signer import CryptoSigner

from orchestrator.model.assignment import Assignment
from orchestrator.model.device import Device, DeviceState
from orchestrator.storage import assignments, devices
from orchestrator.storage.database import Database
from protocol.envelopes import encode, sign
from protocol.mqtt.connection import Message
from protocol.reports import INVENTORY_TYPE, READINESS_TYPE, STATE_TYPE, Inventory, Readiness, StateReport
from protocol.states import Phase, State
from protocol.topics import Kind, Topics

FLEET = "fleet"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOPICS = Topics(FLEET)
CONTENT_KEY = base64.b64encode(b"x" * 32).decode()


def message(kind: Kind, device: str, payload: bytes) -> Message:
    """What arrives on a device's topic."""
    return Message(TOPICS.build(kind, device=device), payload, retain=False, qos=1)


def hint(kind: Kind, device: str, model: BaseModel) -> Message:
    """Presence, progress or wants: unsigned."""
    return message(kind, device, encode(model))


@dataclass
class Speaker:
    """One device's voice."""

    device: str
    signer: CryptoSigner = field(
        default_factory=lambda: CryptoSigner(ec.generate_private_key(ec.SECP256R1())), repr=False
    )

    @property
    def report_key(self) -> dict[str, Any]:
        """As it stands in the device's row."""
        return {"keyid": self.signer.public_key.keyid, **self.signer.public_key.to_dict()}

    def payload(self, model: type[BaseModel], session: int, seq: int, **values: Any) -> bytes:
        """A report's signed bytes."""
        head = {"fleet": FLEET, "issued": NOW, "device": self.device, "session": session, "seq": seq}
        return encode(model(**(head | values)))

    def ready(self, session: int, seq: int, **values: Any) -> Message:
        """All gates of the download are open."""
        values = {"rollout": "r-1", "nonce": f"nonce-{session}-{seq}", "phase": Phase.DOWNLOAD, "ready": True} | values
        payload = self.payload(Readiness, session, seq, **values)
        return message(Kind.READINESS, self.device, sign(payload, READINESS_TYPE, self.signer))

    def state(self, session: int, seq: int, state: State, **values: Any) -> Message:
        """Where the update stands."""
        values = {"rollout": "r-1", "nonce": f"nonce-{session}-{seq}", "attempt": 1, "state": state} | values
        payload = self.payload(StateReport, session, seq, **values)
        return message(Kind.STATE, self.device, sign(payload, STATE_TYPE, self.signer))

    def inventory(self, session: int, seq: int, **values: Any) -> Message:
        """What the device is."""
        values = {"product": "gateway", "hardware": "rev-a", "agent": "0.1.0"} | values
        payload = self.payload(Inventory, session, seq, **values)
        return message(Kind.INVENTORY, self.device, sign(payload, INVENTORY_TYPE, self.signer))


async def admit(db: Database, *speakers: Speaker, revoked: bool = False, offered: bool = False) -> None:
    """Enrol devices and make them members of r-1."""
    async with db.begin() as conn:
        for speaker in speakers:
            state = DeviceState.REVOKED if revoked else DeviceState.ENROLLED
            device = Device(id=speaker.device, product="gateway", hardware="rev-a", state=state, enrolled_at=NOW)
            await devices.insert(conn, device, report_key=speaker.report_key, content_key=CONTENT_KEY)
        values: dict[str, Any] = {"state": "offered", "grant": "download", "offered_at": NOW} if offered else {}
        rows = [Assignment(rollout="r-1", device=one.device, stage=0, place=0, **values) for one in speakers]
        await assignments.insert_all(conn, rows)


async def row(db: Database, device: str) -> Assignment:
    """A device's place in r-1."""
    async with db.read() as conn:
        found = await assignments.get(conn, "r-1", device)
    assert found is not None
    return found
