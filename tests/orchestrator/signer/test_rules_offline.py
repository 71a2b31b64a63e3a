"""An order for a medium is signed within the limit, for a rollout that runs, and lifts no halt."""

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.config import Home, Settings, SignerSettings
from orchestrator.signer.seam import Refusal, Refused, Request, Signed
from orchestrator.signer.signer import Signer
from protocol.clock import ManualClock
from tests.orchestrator.signer.conftest import NOW, Asker

UNTIL = NOW + timedelta(days=30)
OFFLINE: dict[str, Any] = {"expires": UNTIL, "offline_until": UNTIL}


def why(signer: Signer, request: Request) -> Refused | None:
    """Why a request is not signed; None when it is."""
    (answer,) = signer.sign([request])
    return answer.code if isinstance(answer, Refusal) else None


def test_an_order_for_a_medium_lasts_longer_than_a_lease(signer: Signer, asks: Asker) -> None:
    """Thirty days by default, for both halves of it."""
    assert why(signer, asks.announcement(**OFFLINE)) is None
    assert why(signer, asks.offer(**OFFLINE)) is None
    assert why(signer, asks.offer(expires=UNTIL)) is Refused.MISFIT


MISFITS: dict[str, dict[str, Any]] = {
    "longer than the limit": {"expires": UNTIL + timedelta(days=1), "offline_until": UNTIL + timedelta(days=1)},
    "over already": {"expires": NOW, "offline_until": NOW},
    "another end than its own": {"expires": NOW + timedelta(days=1), "offline_until": UNTIL},
    "an activate grant": {**OFFLINE, "grant": "activate", "nonce": "n" * 8, "grant_s": 60},
}


@pytest.mark.parametrize("draft", MISFITS.values(), ids=MISFITS)
def test_what_a_medium_cannot_carry_is_refused(signer: Signer, asks: Asker, draft: dict[str, Any]) -> None:
    """By the limit, by its end, by what it grants."""
    assert why(signer, asks.offer(**draft)) is Refused.MISFIT


def test_a_medium_carries_nothing_but_install(signer: Signer, asks: Asker) -> None:
    """A hold that lasts a month would be no less of a lever than an install."""
    assert why(signer, asks.announcement("hold", **OFFLINE)) is Refused.MISFIT


def test_no_medium_is_made_of_a_halted_rollout(signer: Signer, asks: Asker) -> None:
    """Not with the count and a reason, which lift a halt for everybody else; and not as an answer to a report."""
    signer.sign([asks.announcement(), asks.announcement("hold", halts=1)])
    assert why(signer, asks.announcement(halts=1, reason="looked at", **OFFLINE)) is Refused.HALTED
    assert why(signer, asks.offer(heard={"nonce": "n" * 8}, **OFFLINE)) is Refused.HALTED
    (lifted,) = signer.sign([asks.announcement(halts=1, reason="looked at")])
    assert isinstance(lifted, Signed) and lifted.lifted
    assert why(signer, asks.announcement(**OFFLINE)) is None


def test_a_revoked_device_gets_no_medium(signer: Signer, asks: Asker) -> None:
    """As it gets no other offer."""
    signer.revoke(["dev1"], "stolen")
    assert why(signer, asks.offer(**OFFLINE)) is Refused.REVOKED


def test_the_limit_is_a_setting(home: Home, asks: Asker) -> None:
    """With none, no medium is signed at all."""
    settings = Settings(fleet="north", signer=SignerSettings(offline_max_s=0))
    room = Signer.open(home, settings, ManualClock(NOW))
    assert why(room, asks.offer(**OFFLINE)) is Refused.MISFIT
    assert why(room, asks.offer()) is None
