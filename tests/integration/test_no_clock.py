"""A device without a clock, in a whole rollout: it connects, updates by nonce, and opens no window."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

from tests.integration.small_fleet import installed, make_package, make_tree, small_fleet, until

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ALWAYS = {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "start": "00:00", "minutes": 1440}


class NoClock:
    """A machine that starts in 1970, and counts from there."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def now(self) -> datetime:
        """Seconds after midnight, 1 January 1970."""
        return EPOCH + timedelta(seconds=self.monotonic() - self._start)

    def monotonic(self) -> float:
        """The real one."""
        return time.monotonic()


async def test_a_device_in_1970_is_updated_and_opens_no_window() -> None:
    """Grants are by nonce, so the update goes through; where the owner set windows, it waits and says why."""
    async with small_fleet() as fleet:
        factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0", 1000)
        await fleet.enrol(["free"], factory)
        await fleet.enrol(["windowed"], factory, gates={"windows": [ALWAYS]})
        fleet.start_agents(["free", "windowed"], NoClock())
        tree = await asyncio.to_thread(make_tree, fleet.place, "1.1.0")
        await fleet.publish(await asyncio.to_thread(make_package, fleet.home, tree, "1.1.0"))
        await fleet.roll_out("r-1", "1.1.0")
        await until(lambda: installed(fleet.devices["free"]) == "1.1.0", "the device without a clock runs the release")

        async def said() -> set[tuple[str, str]]:
            device = await fleet.call("get", "/devices/windowed")
            return {(reason["gate"], reason["code"]) for update in device["updates"] for reason in update["reasons"]}

        async with asyncio.timeout(30):
            while ("window", "clock") not in await said():
                await asyncio.sleep(0.1)
        assert installed(fleet.devices["windowed"]) == "1.0.0"
        for name in ("free", "windowed"):
            device = await fleet.call("get", f"/devices/{name}")
            assert "E_CLOCK" in {refusal["code"] for refusal in device["refusals"]}, name
