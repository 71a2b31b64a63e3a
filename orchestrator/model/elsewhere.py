"""What another rollout has to do with a device."""

from dataclasses import dataclass

from orchestrator.model.assignment import Assignment
from orchestrator.model.rollout import Rollout


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A device's open part in another rollout, and the component and version that its release brings."""

    row: Assignment
    rollout: Rollout
    component: str
    version: str
