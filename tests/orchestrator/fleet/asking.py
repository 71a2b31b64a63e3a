"""A device that asks for certificates, as bytes: keys, requests under a claim, renewals."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from securesystemslib.signer import CryptoSigner

from orchestrator.config import CertificateSettings, Home, Settings
from orchestrator.config_brokers import BrokerSettings
from orchestrator.fleet import claims
from orchestrator.fleet.authority import create_authority
from orchestrator.fleet.claims import ClaimPlan, MadeClaim
from orchestrator.storage.claims import Expected
from orchestrator.storage.database import Database
from protocol.clock import ManualClock
from protocol.enrolment import ENROLMENT_TYPE, ClaimRequest
from protocol.envelopes import encode, sign
from protocol.reports import RENEWAL_TYPE, Renewal
from tests.orchestrator.databases import open_new

NOW = datetime(2026, 11, 25, tzinfo=UTC)
FLEET, CLAIM = "harbour", "claim.line-1"
ROOT = json.dumps({"signed": {"_type": "root", "version": 1}})


def csr_of(key: Any) -> str:
    """A certificate request whose subject is somebody else."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "orch-delivery")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return csr.public_bytes(Encoding.PEM).decode()


@dataclass
class Keys:
    """A device's two keys."""

    device: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    content: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)

    @property
    def signer(self) -> CryptoSigner:
        """Signs reports."""
        return CryptoSigner(self.device)

    @property
    def keyid(self) -> str:
        """Of the report key."""
        return str(self.signer.public_key.keyid)

    @property
    def public(self) -> dict[str, str]:
        """What a request says of them."""
        raw = self.content.public_key().public_bytes_raw()
        return {"csr": csr_of(self.device), "content_key": base64.b64encode(raw).decode()}


def claim_request(keys: Keys, serial: str = "SN-1", *also: Keys, **changes: Any) -> bytes:
    """A signed request under a claim; ``also`` sign it too."""
    values = {
        "fleet": FLEET,
        "claim": CLAIM,
        "serial": serial,
        "product": "gateway",
        "hardware": "rev-a",
        "nonce": "n" * 32,
        "issued": NOW,
        **keys.public,
    }
    request = ClaimRequest.model_validate(values | changes)
    return sign(encode(request), ENROLMENT_TYPE, keys.signer, *(one.signer for one in also))


def renewal(device: str, new: Keys, seq: int = 1, **changes: Any) -> tuple[Renewal, str]:
    """(a renewal, its payload's digest)."""
    values = {"fleet": FLEET, "device": device, "issued": NOW, "session": 3, "seq": seq, **new.public}
    message = Renewal.model_validate(values | changes)
    return message, hashlib.sha256(encode(message)).hexdigest()


def signed_renewal(device: str, old: Keys, new: Keys, **changes: Any) -> bytes:
    """The same as it is sent."""
    return sign(encode(renewal(device, new, **changes)[0]), RENEWAL_TYPE, old.signer)


@dataclass
class Office:
    """Where certificates are made: a home with its CAs, an empty database, a clock."""

    db: Database
    home: Home
    settings: Settings
    clock: ManualClock

    async def claim(self, *serials: str, name: str = CLAIM, **changes: Any) -> MadeClaim:
        """Make a claim for these serials; the device's id is the serial with ``dev-`` before it."""
        expected = [Expected(serial, name, f"dev-{serial}", "gateway", "rev-a", {"site": "ulm"}) for serial in serials]
        values: dict[str, Any] = {
            "name": name,
            "csr": csr_of(ec.generate_private_key(ec.SECP256R1())),
            "expected": expected,
            "automatic": True,
            "per_minute": 60,
            "life": timedelta(days=30),
        }
        return await claims.create(self.db, self.home, self.settings, self.clock, ClaimPlan(**values | changes))


async def open_office(place: Path, **certificates: Any) -> Office:
    """An office at this place; close its database."""
    home = Home(place)
    for name in ("devices-ca", "claims-ca"):
        create_authority(home.ca, name)
    home.trust.mkdir()
    (home.trust / "1.root.json").write_text(ROOT)
    broker = BrokerSettings(host="10.0.0.1", advertised_host="broker.example", device_port=1883, enrol_port=1885)
    settings = Settings(fleet=FLEET, broker=broker, certificates=CertificateSettings(**certificates))
    return Office(await open_new(home.database), home, settings, ManualClock(NOW))
