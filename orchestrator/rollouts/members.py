"""Who takes part, and in which stage. Pure: devices in, places out; the order comes from a passed-in Random."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from orchestrator.errors import ConflictError
from orchestrator.model.device import Device, DeviceState
from orchestrator.model.plan import Members, RolloutSpec, StageSpec
from orchestrator.model.selector import Selector
from protocol.manifest import ReleaseInfo

Groups = Mapping[str, frozenset[str]]
"""Device ids by group name."""


@dataclass(frozen=True, slots=True)
class Place:
    """A member's stage, and its place in the order inside it."""

    device: str
    stage: int
    order: float


def select_members(devices: Iterable[Device], members: Members, groups: Groups, info: ReleaseInfo) -> list[Device]:
    """Enrolled devices that are asked for, fit the release, and do not run it yet."""
    selector = Selector.parse(members.selector) if members.selector else None
    group = groups[members.group] if members.group else None
    return [
        device
        for device in devices
        if device.state == DeviceState.ENROLLED
        and device.duplicate_since is None
        and (group is None or device.id in group)
        and (selector is None or selector.matches(device))
        and device.product == info.product
        and device.hardware in info.hardware
        and device.components.get(info.component) != info.version
    ]


def place_members(
    rollout: str, members: Sequence[Device], spec: RolloutSpec, groups: Groups, random: Random
) -> list[Place]:
    """Give every member its stage.

    Percentages are cumulative over all members: a stage of 25 % is filled up to a quarter of the rollout, whatever
    earlier stages took.

    Raises:
        ConflictError: No member, an empty stage, or a member that no stage covers.
    """
    if not members:
        raise ConflictError(
            f"rollout {rollout}: no member; expected enrolled devices that fit {spec.release} and do not run it yet"
        )
    left = {device.id: device for device in random.sample(members, len(members))}
    places: list[Place] = []
    for position, stage in enumerate(spec.stages):
        taken = _take(stage, left, len(members), len(places), groups)
        if not taken:
            raise ConflictError(
                f"rollout {rollout}: stage {stage.name} is empty ({_asked(stage)} of {len(members)} members, "
                f"{len(places)} of them in earlier stages); change the stage or leave it out"
            )
        for device in taken:
            del left[device]
            places.append(Place(device, position, random.random()))
    if left:
        some = ", ".join(sorted(left)[:3])
        raise ConflictError(
            f"rollout {rollout}: {len(left)} of {len(members)} members are in no stage ({some}); "
            "end with a stage of 100%"
        )
    return places


def _take(stage: StageSpec, left: Mapping[str, Device], members: int, placed: int, groups: Groups) -> list[str]:
    if stage.percent is not None:
        # Rounded first: 0.07 * 100 members must not become 8 by a rounding error.
        share = math.ceil(round(stage.percent * members / 100, 9))
        return list(left)[: max(0, share - placed)]
    if stage.group is not None:
        group = groups[stage.group]
        return [device for device in left if device in group]
    selector = Selector.parse(stage.selector or "")
    return [name for name, device in left.items() if selector.matches(device)]


def _asked(stage: StageSpec) -> str:
    if stage.percent is not None:
        return f"up to {stage.percent:g}%"
    return f"group {stage.group}" if stage.group else f"selector {stage.selector}"
