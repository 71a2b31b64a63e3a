"""What dashboards read on ``status/``: counts, stages, rule figures, reasons. Facts only, never orders."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class _Status(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    v: str = "1.0"
    at: AwareDatetime


class FleetStatus(_Status):
    """``status/fleet``: the whole fleet in one message.

    Attributes:
        signer: What keeps the signer from signing; absent when all is well.
        halt: By whom, since when and why the whole fleet is halted; absent where it is not.
        silent: Devices of which nothing signed was heard for too long, while somebody listened.
        stale: Devices that say that their trust ran out: they may be cut off.
        duplicate: Ids under which two live devices speak.
    """

    fleet: str
    devices: int
    online: int
    revoked: int = 0
    versions: dict[str, int] = {}
    rollouts: dict[str, str] = {}
    halted: bool = False
    signer: str | None = None
    silent: int | None = None
    stale: int | None = None
    duplicate: int | None = None
    halt: str | None = None


class RuleFigure(BaseModel):
    """One rule as it stands: what was counted, against what, with what limit.

    Attributes:
        low, high: Where the true share lies with 95 % confidence, by what was counted so far; absent for a count, and
            while nothing was counted.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    rule: str
    numerator: int
    denominator: int
    sample: int
    limit: float
    met: bool
    text: str
    low: float | None = None
    high: float | None = None


class BytesMoved(BaseModel):
    """Bytes of downloads, of all devices together.

    Attributes:
        fetched: Ciphertext that came over the network; ``delta`` of it as deltas.
        copied: From what devices run.
        present: Verified on devices, of ``expected``: the image times the devices.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    fetched: int = 0
    delta: int = 0
    copied: int = 0
    present: int = 0
    expected: int = 0


class StageStatus(BaseModel):
    """One stage; counts are devices by state. Of a long rollout only the stages around the one under way have them.

    Attributes:
        moved: While the stage is under way.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    state: str
    members: int
    offered: int
    counts: dict[str, int] = {}
    reasons: dict[str, int] = {}
    figures: list[RuleFigure] = []
    moved: BytesMoved | None = None


class RolloutStatus(_Status):
    """``status/rollout/{id}``: one rollout.

    Attributes:
        excluded: Members that were revoked, retired or found twice: they are not waited for and prove nothing.
    """

    id: str
    release: str
    state: str
    reason: str = ""
    members: int = 0
    succeeded: int = 0
    failed: int = 0
    rolled_back: int = 0
    untouched: int = 0
    stages: list[StageStatus] = []
    excluded: int | None = None
    moved: BytesMoved | None = None


class DeviceStatus(_Status):
    """``status/device/{device}``: one device as known here."""

    id: str
    online: bool
    components: dict[str, str] = {}
    rollout: str = ""
    state: str = ""
    code: str = ""
    detail: str = ""
    percent: Annotated[float, Field(ge=0, le=100)] = 0
    bytes_fetched: int = 0
    bytes_copied: int | None = None
    bytes_delta: int | None = None
    bytes_present: int | None = None
    bytes_total: int | None = None
    rate_bytes_s: float | None = None
    resumed: bool = False
    reasons: list[str] = []
    ready: bool | None = None
    membership: str | None = None
    silent_since: AwareDatetime | None = None
    stale_since: AwareDatetime | None = None
    duplicate_since: AwareDatetime | None = None


class StatusEvent(_Status):
    """``status/event``: one line per thing that happened."""

    kind: str
    text: str
    rollout: str = ""
    device: str = ""


class Sync(_Status):
    """``status/sync``: how far this broker is, and which generation of ingest listens.

    Attributes:
        database: Identity of the database that this broker was filled from.
        serial: Everything with a serial up to this one was published here.
        ingest: Changes when reports may have been lost; devices then repeat their level.
    """

    type: Literal["sync"] = "sync"
    database: str
    serial: int
    ingest: str
