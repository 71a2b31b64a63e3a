"""What a caller may send: unknown fields are refused, so that a misspelt rule is not a missing one."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from orchestrator.model.failure import FailureClass
from orchestrator.model.plan import ReleaseText, RolloutSpec
from protocol.enrolment import EnrolmentRequest
from protocol.identifiers import ClaimText, IdText, SerialText

MAX_REQUESTS = 1000
MAX_DEVICES = 10_000


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EnrolDevices(_Request):
    """``POST devices``."""

    requests: Annotated[list[EnrolmentRequest], Field(min_length=1, max_length=MAX_REQUESTS)]


class ExpectedDevice(_Request):
    """One line of a claim's list."""

    serial: SerialText
    device: IdText
    product: IdText
    hardware: IdText
    labels: dict[IdText, Annotated[str, StringConstraints(max_length=64)]] = {}


class CreateClaim(_Request):
    """``POST claims``; the key was made by the caller and stays there."""

    name: ClaimText
    csr: Annotated[str, StringConstraints(max_length=8_192)]
    devices: Annotated[list[ExpectedDevice], Field(max_length=100_000)] = []
    any_product: IdText | None = None
    any_hardware: IdText | None = None
    automatic: bool
    per_minute: Annotated[int, Field(ge=1, le=6_000)] = 60
    life_s: Annotated[float, Field(ge=1, le=10 * 365 * 86_400, allow_inf_nan=False)]


class CreateToken(_Request):
    """``POST tokens``."""

    name: IdText


class CreateGroup(_Request):
    """``POST groups``."""

    name: IdText
    devices: Annotated[list[IdText], Field(max_length=MAX_DEVICES)] = []


class GroupDevices(_Request):
    """``POST groups/{group}/devices``, and ``.../remove``."""

    devices: Annotated[list[IdText], Field(min_length=1, max_length=MAX_DEVICES)]


class CreateRollout(_Request):
    """``POST rollouts``; without an id it is the next ``r-N``."""

    id: IdText | None = None
    spec: RolloutSpec


class PlanRollout(_Request):
    """``POST rollouts/plan``."""

    spec: RolloutSpec


class Order(_Request):
    """``POST devices/{device}/{verb}``, ``fleet/halt``, ``fleet/lift``."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)] = ""


class OrderRollout(Order):
    """``POST rollouts/{rollout}/{verb}``.

    Attributes:
        version: Of the rollout, as the caller saw it; another one in force refuses the order.
        devices, classes: With ``retry``: which of the failed devices; none named: all of them.
    """

    version: Annotated[int, Field(ge=1)] | None = None
    devices: Annotated[list[IdText], Field(max_length=MAX_DEVICES)] = []
    classes: Annotated[list[FailureClass], Field(max_length=len(FailureClass))] = []


class CloneRollout(_Request):
    """``POST rollouts/{rollout}/clone``; without an id it is the next ``r-N``, without a release it is the same."""

    id: IdText | None = None
    release: ReleaseText | None = None


class RevertRollout(_Request):
    """``POST rollouts/{rollout}/revert``.

    Attributes:
        unhealthy: Only devices that were left inconsistent, or took too long or fell silent while being changed.
        start: At once; otherwise the rollouts back are drafts.
    """

    unhealthy: bool = False
    start: bool = False


class OrderOffline(_Request):
    """``POST rollouts/{rollout}/offline``; the signer knows how long is too long."""

    devices: Annotated[list[IdText], Field(min_length=1, max_length=MAX_DEVICES)]
    life_s: Annotated[float, Field(gt=0, le=366 * 86_400, allow_inf_nan=False)]


class PublishTrust(_Request):
    """``POST trust``: metadata by file name; ``check_only`` keeps nothing."""

    files: Annotated[dict[str, str], Field(min_length=1, max_length=512)]
    stolen: bool = False
    check_only: bool = False


class LeavingKeys(_Request):
    """``POST trust/leaving``."""

    keyids: Annotated[list[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]], Field(max_length=16)]
