"""Typed signing requests: announcements, offers, the TUF timestamp; and the content keys of packages.

Nothing else signs on the orchestrator's side. What a request lacks (epoch, seq, issued) is filled in here, so that
no caller can choose a number. Calls compute and now and then fsync: run them in a thread, in batches.
"""

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from pydantic import ValidationError
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Timestamp
from tuf.api.serialization.json import JSONSerializer

from orchestrator.config import Home, Settings
from orchestrator.errors import OperationError
from orchestrator.signer.high_water import HighWater
from orchestrator.signer.keys import load_signer, load_x25519
from protocol.clock import Clock, SystemClock
from protocol.directives import ANNOUNCEMENT_TYPE, OFFER_TYPE, Announcement, Directive, Offer
from protocol.encryption import PACKAGE_RECIPIENT, unwrap_key, wrap_key
from protocol.envelopes import b64, encode, sign

TIMESTAMP_LIFE = timedelta(days=7)
D = TypeVar("D", bound=Directive)


class Signed(NamedTuple):
    """A signed directive."""

    payload: bytes
    envelope: bytes
    epoch: int
    seq: int


class Signer:
    """The director key, the timestamp key and the package key of one fleet."""

    def __init__(
        self,
        fleet: str,
        director: CryptoSigner,
        timestamp: CryptoSigner,
        package: X25519PrivateKey,
        marks: HighWater,
        clock: Clock,
    ) -> None:
        self._fleet = fleet
        self._director = director
        self._timestamp = timestamp
        self._package = package
        self._clock = clock
        self.marks = marks

    @classmethod
    def open(cls, home: Home, settings: Settings, clock: Clock | None = None) -> "Signer":
        """Load the keys of a home. Blocking.

        Raises:
            OperationError: A key or the marks are missing, unreadable or readable by others.
        """
        return cls(
            settings.fleet,
            load_signer(home.signer / "director.key"),
            load_signer(home.signer / "timestamp.key"),
            load_x25519(home.signer / "package.key"),
            HighWater(home.signer / "high-water.json"),
            clock or SystemClock(),
        )

    def sign_announcement(self, draft: Mapping[str, Any]) -> Signed:
        """Sign an announcement; the draft has everything but fleet, epoch, seq and issued.

        Raises:
            ValueError: The draft is not an announcement.
            OperationError: The marks cannot be kept.
        """
        return self._sign(Announcement, ANNOUNCEMENT_TYPE, draft)

    def sign_offer(self, draft: Mapping[str, Any]) -> Signed:
        """Sign an offer; the draft has everything but fleet, epoch, seq and issued.

        Raises:
            ValueError: The draft is not an offer.
            OperationError: The marks cannot be kept.
        """
        return self._sign(Offer, OFFER_TYPE, draft)

    def open_package_key(self, wrapped: bytes, release_sha256: str) -> bytes:
        """The content key of a package that was made for this signer.

        Raises:
            ContentError: E_KEY: it was made for another signer or another release.
        """
        return unwrap_key(wrapped, self._package, release=release_sha256, device=PACKAGE_RECIPIENT)

    def wrap(self, cek: bytes, content_key: str, release_sha256: str, device: str) -> str:
        """The content key for one device, base64.

        Args:
            content_key: The device's X25519 public key, base64.

        Raises:
            OperationError: The device's key is none.
        """
        try:
            recipient = X25519PublicKey.from_public_bytes(base64.b64decode(content_key, validate=True))
        except (ValueError, binascii.Error) as error:
            raise OperationError(f"device {device}: its content key is not an X25519 key; enrol it again") from error
        return b64(wrap_key(cek, recipient, release=release_sha256, device=device))

    def bump_timestamp(self, snapshot_version: int, now: datetime | None = None) -> bytes:
        """Sign the next timestamp over a snapshot; valid for seven days.

        Raises:
            OperationError: The marks cannot be kept.
        """
        now = (now or self._clock.now()).replace(microsecond=0)
        timestamp = Timestamp(
            version=self.marks.next_timestamp(), expires=now + TIMESTAMP_LIFE, snapshot_meta=MetaFile(snapshot_version)
        )
        metadata = Metadata(timestamp)
        metadata.sign(self._timestamp)
        return metadata.to_bytes(JSONSerializer(compact=True))

    @property
    def director_keyid(self) -> str:
        """Key id that the offline targets role must list for the director."""
        return self._director.public_key.keyid

    def _sign(self, model: type[D], payload_type: str, draft: Mapping[str, Any]) -> Signed:
        issued = self._clock.now().replace(microsecond=0)
        checked = {**draft, "fleet": self._fleet, "issued": issued, "epoch": 1, "seq": 1}
        try:
            message = model.model_validate(checked)
        except ValidationError as error:
            raise ValueError(f"{model.__name__}: {error.error_count()} mistakes in the draft: {error}") from error
        epoch, seq = self.marks.next_order()  # only now: a bad draft uses up no number
        payload = encode(message.model_copy(update={"epoch": epoch, "seq": seq}))
        return Signed(payload, sign(payload, payload_type, self._director), epoch, seq)
