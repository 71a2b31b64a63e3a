"""Somebody who has the orchestrator's online keys as files, and so none of the signer's refusals in the way."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from orchestrator.signer.keys import load_signer, load_x25519
from protocol.directives import ANNOUNCEMENT_TYPE, OFFER_TYPE, Announcement, Offer
from protocol.encryption import PACKAGE_RECIPIENT, unwrap_key, wrap_key
from protocol.envelopes import b64, encode, sign


class StolenKeys:
    """The keys of a home's ``signer/``; every message gets a higher seq than anything that was signed there."""

    def __init__(self, folder: Path, fleet: str) -> None:
        self._director = load_signer(folder / "director.key")
        self._package = load_x25519(folder / "package.key")
        self._fleet = fleet
        self._seq = 10_000_000

    def announcement(self, draft: Mapping[str, Any]) -> bytes:
        """Signed; the draft may set or leave out fleet, issued, epoch and seq."""
        payload = encode(Announcement.model_validate(self._filled(draft)))
        return sign(payload, ANNOUNCEMENT_TYPE, self._director)

    def offer(self, draft: Mapping[str, Any]) -> bytes:
        """Signed likewise."""
        return sign(encode(Offer.model_validate(self._filled(draft))), OFFER_TYPE, self._director)

    def wrap(self, sealed_key: bytes, sha256: str, device: str, content_key: str) -> str:
        """A package's content key for any device."""
        cek = unwrap_key(sealed_key, self._package, release=sha256, device=PACKAGE_RECIPIENT)
        recipient = X25519PublicKey.from_public_bytes(base64.b64decode(content_key))
        return b64(wrap_key(cek, recipient, release=sha256, device=device))

    def _filled(self, draft: Mapping[str, Any]) -> dict[str, Any]:
        self._seq += 1
        issued = datetime.now(UTC).replace(microsecond=0)
        return {"fleet": self._fleet, "issued": issued, "epoch": 1, "seq": self._seq, **draft}
