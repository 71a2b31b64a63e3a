"""Is the device too hot to work hard? Linux' thermal zones."""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path

from device_client.gates.gate import GateContext, Ready, Verdict, Wait, unknown
from device_client.kernel_files import kernel_text

MAX_ZONES = 256
MAX_NAME = 40


class TemperatureGate:
    """Open while no zone is hotter than the limit, if there is one."""

    name = "temperature"

    def __init__(self, root: Path, max_celsius: float | None, *, waits: bool) -> None:
        """Watch the zones below ``root``; ``waits``: where none can be read it is shut."""
        self._root = root
        self._max_celsius = max_celsius
        self._waits = waits

    async def judge(self, _context: GateContext) -> Verdict:
        """Judge the zones as they are now."""
        if self._max_celsius is None:
            return Ready("no limit is set")
        return judge(await asyncio.to_thread(read_zones, self._root), self._max_celsius, waits=self._waits)


def judge(celsius: Mapping[str, float], max_celsius: float, *, waits: bool) -> Verdict:
    """Pure: the hottest zone decides.

    Args:
        celsius: By the zone's name.
    """
    if not celsius:
        return unknown(f"no thermal zone can be read; at most {max_celsius:g} °C is allowed", waits=waits)
    zone, hottest = max(celsius.items(), key=lambda found: found[1])
    detail = f"{zone} at {hottest:.1f} °C; at most {max_celsius:g} °C is allowed"
    return Ready(detail) if hottest <= max_celsius else Wait("hot", detail)


def read_zones(root: Path) -> dict[str, float]:
    """Read ``<root>/thermal_zone*/{temp,type}``; a zone that cannot be read just now is left out. Blocking."""
    celsius: dict[str, float] = {}
    for zone in sorted(root.glob("thermal_zone*"))[:MAX_ZONES]:
        millidegrees = kernel_text(zone / "temp", 32)
        if re.fullmatch(r"-?\d{1,9}", millidegrees):
            name = f"{zone.name} ({kernel_text(zone / 'type', MAX_NAME) or 'no type'})"
            celsius[name] = int(millidegrees) / 1000
    return celsius
