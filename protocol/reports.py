"""What a device says: presence, inventory, readiness, state, progress, wants.

Inventory, readiness and state are DSSE payloads signed with the device's certificate key. (session, seq) orders them:
``session`` is raised durably before each CONNECT, ``seq`` counts within it. Progress, wants and presence are hints.
"""

import hashlib
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from protocol.directives import Message, Nonce, ReleaseRef
from protocol.errors import ErrorCode
from protocol.identifiers import DigestText, IdText, VersionText
from protocol.numbers import Count, Ordinal
from protocol.states import OUTCOMES, Phase, State

INVENTORY_TYPE = "application/vnd.flagship.inventory+json"
READINESS_TYPE = "application/vnd.flagship.readiness+json"
STATE_TYPE = "application/vnd.flagship.state+json"
RENEWAL_TYPE = "application/vnd.flagship.renewal+json"

MAX_REFUSALS = 16
Text = Annotated[str, StringConstraints(max_length=500)]
MAX_BYTES = 2**42
Bytes = Annotated[int, Field(ge=0, le=MAX_BYTES)]
"""Of one device's download. What a million devices say still adds up in a database."""
GateCode = Annotated[str, StringConstraints(max_length=40, pattern=r"^[a-z][a-z_]*$")]


class Report(Message):
    """Fields of every signed report."""

    device: IdText
    session: Ordinal
    seq: Ordinal

    @property
    def order(self) -> tuple[int, int]:
        """What later reports of this device exceed."""
        return self.session, self.seq


class Refusal(BaseModel):
    """What a device refused of what came down to it, by code: the operator's view of an attack or a mistake.

    Attributes:
        code: The newest detail is of this code.
        count: How often since the agent started.
        last: When it was refused last.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    code: ErrorCode
    detail: Text = ""
    count: Ordinal
    last: AwareDatetime


class Inventory(Report):
    """What the device is and what it refuses: said once per session, on change and as a sign of life.

    Attributes:
        stale_since: When its trust ran out; it may be cut off. None while all is fresh.
        refusals: The newest per code; None where nothing was refused.
        instance: Random, made when the agent starts and never stored: two of them that take turns are two devices.
        boot: Which boot of which machine it runs on.
    """

    type: Literal["inventory"] = "inventory"
    product: IdText
    hardware: IdText
    components: dict[IdText, VersionText] = {}
    labels: dict[IdText, Annotated[str, StringConstraints(max_length=64)]] = {}
    capabilities: list[IdText] = []
    agent: VersionText
    stale_since: AwareDatetime | None = None
    refusals: Annotated[list[Refusal], Field(max_length=MAX_REFUSALS)] | None = None
    instance: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")] | None = None
    boot: Annotated[str, StringConstraints(max_length=64)] | None = None


class Reason(BaseModel):
    """One gate that is not open.

    Attributes:
        gate: Which gate.
        code: Why, one word for programs.
        detail: Why, with the figure and the limit, for people.
        retry_after_s: When it will be asked again; 0 where a change is noticed by itself.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    gate: GateCode
    code: GateCode
    detail: Text = ""
    retry_after_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0


class Readiness(Report):
    """Which gates are open for the next phase of a rollout, on announcements and on change.

    Attributes:
        nonce: Echoed by the grant that answers this report.
        phase: The phase that the gates were judged for.
        ready: Whether all of them are open.
        stale: The device's trust or lease ran out: it may be cut off.
    """

    type: Literal["readiness"] = "readiness"
    rollout: IdText
    attempt: Count = 0
    nonce: Nonce
    phase: Phase
    ready: bool
    reasons: Annotated[list[Reason], Field(max_length=32)] = []
    stale: bool = False


class StateReport(Report):
    """Where the open update stands; outcomes included.

    Attributes:
        nonce: Echoed by ``heard``.
        code: The error code of a refusal or failure.
        from_version, running_version: Of the release's component.
        log: Tail of what installer and hooks wrote, control characters removed.
        offline_until: The device went on unasked, by an offer that let it until then.
    """

    type: Literal["state"] = "state"
    rollout: IdText
    attempt: Count
    release: ReleaseRef | None = None
    nonce: Nonce
    state: State
    code: ErrorCode | None = None
    detail: Text = ""
    phase: Phase | None = None
    reasons: Annotated[list[Reason], Field(max_length=32)] = []
    from_version: VersionText | None = None
    running_version: VersionText | None = None
    resumed: bool = False
    bytes_fetched: Count = 0
    log: Annotated[str, StringConstraints(max_length=10_240)] = ""
    offline_until: AwareDatetime | None = None

    @property
    def is_outcome(self) -> bool:
        """Whether the device does nothing more for this attempt."""
        return self.state in OUTCOMES


class Renewal(Report):
    """New keys in the place of old ones, signed with the old report key; said again verbatim until it is answered.

    Attributes:
        csr: PKCS#10 in PEM for the new P-256 key; its signature proves possession, its subject is ignored.
        content_key: New X25519 public key, 32 B in base64.
    """

    type: Literal["renewal"] = "renewal"
    csr: Annotated[str, StringConstraints(min_length=40, max_length=8_192)]
    content_key: Annotated[str, StringConstraints(min_length=44, max_length=44)]


class Presence(BaseModel):
    """A hint; the will says ``online: false`` and ends only its own session."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: str = "1.0"
    session: Ordinal
    online: bool


class Progress(BaseModel):
    """A hint for people, rate-limited: how far the transfer is.

    Attributes:
        attempt: Of the offer; None where an older agent does not say it, as with the others.
        bytes_fetched: Ciphertext that came over the network.
        bytes_copied: Copied from what the device runs.
        bytes_delta: Those of ``bytes_fetched`` that were deltas.
        bytes_present, bytes_total: Verified on the disk, and what will be installed.
        rate_bytes_s: Over the last seconds.
        remaining_s: At that rate; None where nothing moves.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: str = "1.0"
    rollout: IdText
    state: State
    attempt: Count | None = None
    percent: Annotated[float, Field(ge=0, le=100)]
    bytes_fetched: Bytes = 0
    bytes_copied: Bytes | None = None
    bytes_delta: Bytes | None = None
    bytes_present: Bytes | None = None
    bytes_total: Bytes = 0
    rate_bytes_s: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)] | None = None
    remaining_s: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = None
    at: AwareDatetime | None = None


class Want(BaseModel):
    """Chunk ids of the open offer that did not come: a hint, budgeted."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: str = "1.0"
    rollout: IdText
    cids: Annotated[list[DigestText], Field(min_length=1, max_length=64)]


def outcome_digest(payload: bytes) -> str:
    """What ``heard.outcome`` names: sha256 hex of the signed payload's bytes."""
    return hashlib.sha256(payload).hexdigest()
