"""Is there room for what is still to be written, and for the reserve that keeps the journal alive?"""

import asyncio
import os
from pathlib import Path

from device_client.gates.gate import GateContext, Ready, Verdict, Wait


class DiskGate:
    """Open while the file system of the device's home has the room."""

    name = "disk"

    def __init__(self, path: Path, reserve_bytes: int) -> None:
        self._path = path
        self._reserve_bytes = reserve_bytes

    async def judge(self, context: GateContext) -> Verdict:
        """Judge the room as it is now."""
        return judge(await asyncio.to_thread(free_bytes, self._path), context.need_bytes, self._reserve_bytes)


def judge(free: int, need: int, reserve: int) -> Verdict:
    """Pure: what is needed and the reserve must both fit."""
    figures = f"{free} B free; {need} B are needed and {reserve} B are kept in reserve"
    if need == 0 or free >= need + reserve:
        return Ready(figures)
    return Wait("disk_full", figures)


def free_bytes(path: Path) -> int:
    """Bytes that an unprivileged process may still write."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize
