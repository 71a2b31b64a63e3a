"""Is there power enough? Linux' power-supply class; a device without a battery is on mains."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from device_client.errors import UnreachableError
from device_client.gates.gate import GateContext, Ready, Verdict, Wait, unknown
from device_client.kernel_files import kernel_text

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

    def __init__(self, root: Path, upower: Callable[[], Power] | None = None, *, waits: bool = False) -> None:
        """Watch the supplies.

        Args:
            root: Where the kernel shows them.
            upower: Is asked where it shows none; may block.
            waits: Without an answer of ``upower`` it is shut.
        """
        self._root = root
        self._upower = upower
        self._waits = waits

    async def judge(self, context: GateContext) -> Verdict:
        """Judge the supplies as they are now."""
        least = context.policy.min_battery_percent
        power = await asyncio.to_thread(read_power, self._root)
        if self._upower and least and power == Power(external=False, batteries=()):
            try:
                power = await asyncio.to_thread(self._upower)
            except UnreachableError as error:
                return unknown(f"power is not known, at least {least} % is needed: {error}", waits=self._waits)
        return judge(power, least)


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
    return kernel_text(supply / name, MAX_ATTRIBUTE_BYTES)
