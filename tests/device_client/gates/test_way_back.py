"""Way back: asked only where the policy demands it, and not for downloads."""

import pytest

from device_client.gates.gate import GateContext, Ready, Wait
from device_client.gates.way_back import WayBackGate
from protocol.manifest import Policy
from protocol.states import Phase


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("demanded", [None, False, True])
async def test_way_back(there: bool, phase: Phase, demanded: bool | None) -> None:
    """Shut exactly when a way back is demanded, something is to be changed, and there is none."""
    context = GateContext(phase, "r", 0, Policy(require_way_back=demanded), "ab" * 32)
    verdict = await WayBackGate(lambda: there).judge(context)
    if demanded and phase is not Phase.DOWNLOAD and not there:
        assert isinstance(verdict, Wait)
        assert verdict.code == "no_way_back"
    else:
        assert verdict == Ready()
