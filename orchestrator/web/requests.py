"""What a caller may send: unknown fields are refused, so that a misspelt rule is not a missing one."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from orchestrator.model.rollout import RolloutSpec
from protocol.enrolment import EnrolmentRequest
from protocol.identifiers import IdText

MAX_REQUESTS = 1000
MAX_DEVICES = 10_000


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EnrolDevices(_Request):
    """``POST devices``."""

    requests: Annotated[list[EnrolmentRequest], Field(min_length=1, max_length=MAX_REQUESTS)]


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


class Order(_Request):
    """``POST rollouts/{rollout}/{verb}``."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)] = ""
