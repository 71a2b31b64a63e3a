"""May chunks be fetched over the links that there are? Links that cost money have a limit for the day."""

from collections.abc import Callable, Sequence

from device_client.gates.gate import GateContext, Ready, Verdict, Wait
from protocol.states import Phase


class NetworkGate:
    """Closed for downloads while the owner's word on metered links bars every source."""

    name = "network"

    def __init__(self, barred: Callable[[], Sequence[str]], look_again_s: float) -> None:
        """Ask ``barred`` for one sentence a source, empty for one that may be used; it may be asked at any time."""
        self._barred = barred
        self._look_again_s = look_again_s

    async def judge(self, context: GateContext) -> Verdict:
        """Judge the links as they are now; installing and activating need none."""
        return judge(self._barred(), self._look_again_s) if context.phase is Phase.DOWNLOAD else Ready()


def judge(barred: Sequence[str], look_again_s: float) -> Verdict:
    """Pure: one source that may be used is enough; whether it answers is for the download to find out."""
    if not barred or not all(barred):
        return Ready("a source may be used")
    return Wait("metered", barred[0], look_again_s)
