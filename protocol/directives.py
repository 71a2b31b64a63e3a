"""What the orchestrator says to devices: announcements and offers. The payloads inside DSSE envelopes.

An announcement is a lease on a whole rollout; an offer says what one device may do now. Both carry the release by
path, length, sha256 and counter, and these must equal what the offline keys signed (Uptane's rule: two keys agree).
"""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from protocol.identifiers import DigestText, IdText
from protocol.manifest import Policy
from protocol.numbers import Counter, Ordinal

ANNOUNCEMENT_TYPE = "application/vnd.flagship.announcement+json"
OFFER_TYPE = "application/vnd.flagship.offer+json"
MAX_OFFLINE = timedelta(days=90)
"""From when it was issued, the longest that an offer may let a device act unasked; whoever signed it."""
SUPERSEDED = "superseded"
"""The reason of an offer that was closed for another one's sake begins so: the update ends as superseded."""
Nonce = Annotated[str, StringConstraints(min_length=8, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
Version = Annotated[str, StringConstraints(pattern=r"^1\.[0-9]{1,4}$")]


class Action(StrEnum):
    """What the rollout as a whole does."""

    INSTALL = "install"
    HOLD = "hold"
    ABORT = "abort"


class Grant(StrEnum):
    """What one device may do now."""

    DOWNLOAD = "download"
    ACTIVATE = "activate"
    CLOSED = "closed"


class Message(BaseModel):
    """Fields of every signed payload; unknown fields of a newer minor version are tolerated."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: Version = "1.0"
    fleet: IdText
    issued: AwareDatetime


class ReleaseRef(BaseModel):
    """A release as both keys must name it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: Annotated[str, StringConstraints(min_length=5, max_length=160)]
    length: Ordinal
    sha256: DigestText
    counter: Counter


class Heard(BaseModel):
    """What the orchestrator has taken in from this device, in answer to its last report.

    Attributes:
        nonce: Of the newest readiness or state report.
        outcome: sha256 hex of the outcome's payload bytes.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    nonce: Nonce | None = None
    outcome: DigestText | None = None


class Directive(Message):
    """Fields of everything that goes down. (epoch, seq) is compared as a pair and never falls."""

    rollout: IdText
    expires: AwareDatetime
    epoch: Ordinal
    seq: Ordinal
    release: ReleaseRef

    @property
    def order(self) -> tuple[int, int]:
        """What later directives on this topic must exceed."""
        return self.epoch, self.seq


class Announcement(Directive):
    """Signed, retained, one per rollout.

    Attributes:
        offline_until: It was made for a medium: a lease for devices whose offer says so too, and for nobody else.
    """

    type: Literal["announcement"] = "announcement"
    action: Action
    policy: Policy = Policy()
    offline_until: AwareDatetime | None = None


class Offer(Directive):
    """Signed, retained, one per device and rollout.

    Attributes:
        attempt: Rises when the operator lets a device try again.
        grant: What may be done now.
        nonce: Of the readiness that this grant answers; set with ``activate``.
        grant_s: How long ``activate`` lasts from when the device received it, on its monotonic clock.
        key_wrap: The content key for this device, base64; absent when closed.
        reason: Why it is closed, for people.
        offline_until: Until then a device that allows it installs, activates and commits on its own proof, unasked.
    """

    type: Literal["offer"] = "offer"
    device: IdText
    attempt: Ordinal = 1
    grant: Grant
    nonce: Nonce | None = None
    grant_s: Annotated[int, Field(gt=0, le=3600)] | None = None
    key_wrap: Annotated[str, StringConstraints(max_length=4096)] | None = None
    heard: Heard = Heard()
    reason: Annotated[str, StringConstraints(max_length=200)] = ""
    offline_until: AwareDatetime | None = None

    @property
    def is_superseded(self) -> bool:
        """Whether it was closed because another rollout takes its place on this device."""
        return self.grant is Grant.CLOSED and self.reason.startswith(SUPERSEDED)


def superseded_by(rollout: str) -> str:
    """The reason with which an offer is closed so that the device is free for another rollout."""
    return f"{SUPERSEDED} by rollout {rollout}"
