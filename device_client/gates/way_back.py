"""Could this device go back if the new version fails?"""

import asyncio
from collections.abc import Callable

from device_client.gates.gate import GateContext, Ready, Verdict, Wait
from protocol.states import Phase


class WayBackGate:
    """Open where the policy does not ask, or the version that a rollback returns to is present and intact."""

    name = "way_back"

    def __init__(self, way_back: Callable[[], bool]) -> None:
        """Ask ``way_back``, which may block: the installer hashes a release."""
        self._way_back = way_back

    async def judge(self, context: GateContext) -> Verdict:
        """Hash the release that would be returned to."""
        if context.phase is Phase.DOWNLOAD or not context.policy.require_way_back:
            return Ready("none is demanded")
        if await asyncio.to_thread(self._way_back):
            return Ready("the running version is there and intact")
        return Wait(
            "no_way_back",
            "the running version is missing or damaged, so a failed update could not return to it",
        )
