"""Is there power enough? Linux' power-supply class; a device without a battery is on mains."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from device_client.gates.gate import GateContext, Ready, Verdict, Wait

MAX_ATTRIBUTE_BYTES = 256


@dataclass(frozen=True, slots=True)
class Power:
    """What the supplies say.

    Attributes:
        external: Some supply that is not a battery is online.
        batteries: Charge of each of the device's own batteries in percent; None where it cannot be read.
    """

    external: bool
    batteries: tuple[int | None, ...]


class PowerGate:
    """Open on external power, or with the charge that the policy demands."""

    name = "power"

    def __init__(self, root: Path) -> None:
        self._root = root

    async def judge(self, context: GateContext) -> Verdict:
        """Judge the supplies as they are now."""
        return judge(await asyncio.to_thread(read_power, self._root), context.policy.min_battery_percent)


def judge(power: Power, min_percent: int | None) -> Verdict:
    """Pure: external power, no battery or no demand is enough; else the mean charge decides."""
    if power.external:
        return Ready("on external power")
    if not power.batteries:
        return Ready("no battery: on mains")
    if not min_percent:
        return Ready("no charge is demanded")
    known = [charge for charge in power.batteries if charge is not None]
    if not known:
        return Wait("battery_unknown", f"the battery's charge cannot be read; at least {min_percent} % is needed")
    charge = sum(known) // len(known)
    if charge >= min_percent:
        return Ready(f"battery at {charge} %; at least {min_percent} % is needed")
    return Wait("battery_low", f"battery at {charge} %; at least {min_percent} % is needed, or external power")


def read_power(root: Path) -> Power:
    """Read ``<root>/*/{type,scope,online,capacity}``; supplies of attached devices (scope Device) do not count."""
    external = False
    batteries: list[int | None] = []
    for supply in sorted(root.iterdir()) if root.is_dir() else ():
        if _attribute(supply, "scope") == "Device":
            continue
        if _attribute(supply, "type") == "Battery":
            if _attribute(supply, "present") != "0":
                capacity = _attribute(supply, "capacity")
                batteries.append(int(capacity) if capacity.isdecimal() else None)
        elif _attribute(supply, "online") not in ("", "0"):
            external = True
    return Power(external, tuple(batteries))


def _attribute(supply: Path, name: str) -> str:
    try:
        with (supply / name).open() as file:
            return file.read(MAX_ATTRIBUTE_BYTES).strip()
    except (OSError, UnicodeDecodeError):
        return ""
