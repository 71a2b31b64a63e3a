"""What may be asked of the signer, and what it answers: the one seam between it and everybody else.

Two rooms stand behind it: ``signer.Signer`` with the keys in this process, and ``client.SignerClient`` that asks the
process of ``flagship signer``. All calls block; make them in threads, in batches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

Order = tuple[int, int]
"""(epoch, seq)."""
Draft = Mapping[str, Any]
"""A directive without fleet, issued, epoch, seq and key_wrap: these are the signer's."""
MAX_BATCH = 1000
"""Drafts in one request."""
MAX_REVOKED_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class AnnouncementRequest:
    """Sign an announcement.

    ``hold`` and ``abort`` latch the rollout. ``install`` of a latched rollout lifts the latch when it names the halt
    that it follows and why.

    Attributes:
        halts: How often the rollout was halted or aborted, as the caller knows it.
        reason: Why it is in the state that it is in.
    """

    draft: Draft
    halts: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OfferRequest:
    """Sign an offer, and wrap the content key for its device where it grants something.

    Attributes:
        sealed_key: The content key as the package carries it, sealed to this signer; b"" when the offer is closed.
        content_key: The device's X25519 public key, base64; "" likewise.
    """

    draft: Draft
    sealed_key: bytes = b""
    content_key: str = ""


Request = AnnouncementRequest | OfferRequest


class Refused(StrEnum):
    """Why the signer does not sign a draft."""

    HALTED = "halted"
    REVOKED = "revoked"
    MISFIT = "misfit"  # it does not have the form, or does not fit what was signed before
    KEY = "key"  # the sealed key is not for this signer and this release
    LATER = "later"  # the rate limit


@dataclass(frozen=True, slots=True)
class Refusal:
    """One draft that was not signed. ``retry_s`` is set with ``LATER``."""

    code: Refused
    why: str
    retry_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed directive; ``lifted`` when it ended a halt."""

    envelope: bytes
    epoch: int
    seq: int
    lifted: bool = False


@dataclass(frozen=True, slots=True)
class Begun:
    """What the signer says at the start.

    Attributes:
        order: The highest (epoch, seq) so far, to be stored: what is compared at the next start.
        raised: A new epoch began: the database was older than what was signed.
        halted: Why each latched rollout is halted, by id.
    """

    order: Order
    raised: bool
    halted: Mapping[str, str] = field(default_factory=dict)


class SigningRoom(Protocol):
    """The signer, here or in its own process.

    Every call may raise OperationError: nothing is signed while the marks, the facts or the log cannot be kept. In its
    own process also SignerAwayError: it does not answer now.
    """

    def begin(self, stored: Order, timestamp: int) -> Begun:
        """Compare the signer's marks with what was published before; asked once, before anything is signed.

        Args:
            stored: The highest (epoch, seq) that the database knows; (0, 0) for none.
            timestamp: The highest timestamp version that was published.

        Raises:
            ConflictError: The marks are an old copy.
        """
        ...

    def sign(self, requests: Sequence[Request]) -> list[Signed | Refusal]:
        """Answer up to ``MAX_BATCH`` requests, in order. A refusal of one is no reason to refuse another."""
        ...

    def bump_timestamp(self, snapshot_version: int, listed: Sequence[str] = ()) -> bytes:
        """Sign the next timestamp over a snapshot; valid for seven days.

        Args:
            listed: Key ids of the timestamp role in the newest root; the newest own key among them signs. None named:
                the one in use.

        Raises:
            ConflictError: This signer has none of them.
        """
        ...

    def use_director(self, listed: Sequence[str], *, switch: bool = True) -> str:
        """Sign with the newest own director key that the offline keys list; returns its key id.

        Args:
            switch: False only tells which one it would be.

        Raises:
            ConflictError: This signer has none of them; nothing changed.
        """
        ...

    def highest_timestamp(self) -> int:
        """The highest timestamp version that was ever signed."""
        ...

    def unseal(self, sealed_key: bytes, sealed: bytes) -> bytes:
        """A release's manifest for its import, decrypted and still packed. The content key stays here.

        Raises:
            ContentError: E_KEY: the key was made for another signer or release, or does not open it.
        """
        ...

    def revoke(self, devices: Sequence[str], reason: str) -> None:
        """Never wrap for these devices again, and offer them nothing but ``closed``. Up to ``MAX_REVOKED_AT_ONCE``."""
        ...

    def sign_head(self, entry: int, digest: str) -> bytes:
        """Sign where the audit log ends, with what was signed of it before; a DSSE envelope by the director's key.

        Args:
            entry: Number of the last entry.
            digest: Its hash.

        Raises:
            ConflictError: A later entry was signed before, or this one with another hash: the log was written anew.
        """
        ...

    def lift(self, rollout: str, reason: str) -> None:
        """End a halt that the database does not know of.

        Raises:
            NotFoundError: The rollout is not halted here.
            ConflictError: It was aborted.
            UsageError: There is no reason.
        """
        ...
