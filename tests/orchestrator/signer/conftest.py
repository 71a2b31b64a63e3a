"""A home with the signer's keys, a signer on it, and requests to ask."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from orchestrator.config import Home, Settings
from orchestrator.signer.keys import load_x25519
from orchestrator.signer.seam import AnnouncementRequest, OfferRequest
from orchestrator.signer.signer import Signer
from protocol.clock import ManualClock
from protocol.encryption import PACKAGE_RECIPIENT, wrap_key
from tests.orchestrator.delivery.lab import make_keys

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
SHA = "a" * 64
CEK = b"c" * 32
DRAFT: dict[str, Any] = {
    "rollout": "r-1",
    "expires": NOW + timedelta(hours=1),
    "release": {"path": "gateway/1.1.0/manifest", "length": 3, "sha256": SHA, "counter": 0},
}


class Asker:
    """Makes requests that hold: one device, one release."""

    def __init__(self, home: Home) -> None:
        package = load_x25519(home.signer / "package.key").public_key()
        self.device_key = X25519PrivateKey.generate()
        self.content_key = base64.b64encode(self.device_key.public_key().public_bytes_raw()).decode()
        self.sealed_key = wrap_key(CEK, package, release=SHA, device=PACKAGE_RECIPIENT)

    def announcement(
        self, action: str = "install", halts: int = 0, reason: str = "", **draft: Any
    ) -> AnnouncementRequest:
        """An announcement of r-1."""
        return AnnouncementRequest({**DRAFT, "action": action, **draft}, halts, reason)

    def offer(self, grant: str = "download", device: str = "dev1", **draft: Any) -> OfferRequest:
        """An offer of r-1; with the key where the grant is one."""
        whole = {**DRAFT, "device": device, "grant": grant, **draft}
        if grant == "closed":
            return OfferRequest(whole)
        if grant == "activate":
            whole = {"nonce": "n" * 8, "grant_s": 60, **whole}
        return OfferRequest(whole, self.sealed_key, self.content_key)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with the signer's keys."""
    home = Home(tmp_path)
    make_keys(home)
    return home


@pytest.fixture
def clock() -> ManualClock:
    """Moved by hand."""
    return ManualClock(NOW)


@pytest.fixture
def signer(home: Home, clock: ManualClock) -> Signer:
    """A signer at a fixed time."""
    return Signer.open(home, Settings(fleet="north"), clock)


@pytest.fixture
def asks(home: Home) -> Asker:
    """What makes requests."""
    return Asker(home)
