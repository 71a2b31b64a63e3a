"""May this be signed? Pure: a checked directive and what the signer knows in, a refusal or nothing out.

What the signer cannot know, because only the database does: whether a device is enrolled, whether its assignment is
open, whether it asked. These it takes from the caller; see docs/decisions/0008.
"""

from datetime import datetime, timedelta

from orchestrator.signer.facts import Halt
from orchestrator.signer.seam import Refusal, Refused
from protocol.directives import Action, Announcement, Grant, Offer

_WAITED = timedelta(minutes=5)
"""For a draft that waited."""
MAX_LEASE = timedelta(days=7) + _WAITED
"""Design, section 4: at most seven days."""


def judge_announcement(
    message: Announcement,
    halt: Halt | None,
    bound: str | None,
    *,
    halts: int,
    reason: str,
    now: datetime,
    offline_max: timedelta,
) -> Refusal | None:
    """Whether an announcement may be signed.

    Args:
        halt: The latch on its rollout.
        bound: sha256 of the release that the rollout was signed for first.
        halts: How often the caller knows the rollout to have been halted.
        reason: Why it goes on.
        offline_max: The longest that an announcement for a medium may last.
    """
    name = f"rollout {message.rollout}"
    misfit = _misfit(message, bound, now, offline_max)
    if misfit is None and message.offline_until is not None:
        if message.action is not Action.INSTALL:
            return Refusal(Refused.MISFIT, f"{name}: a medium carries install, the draft says {message.action}")
        if halt is not None:
            return Refusal(Refused.HALTED, f"{name}: was halted {_when(halt)}; no medium is made of it")
    if misfit is not None or message.action is not Action.INSTALL or halt is None:
        return misfit
    if halt.final:
        return Refusal(Refused.HALTED, f"{name}: was aborted {_when(halt)}; nothing lifts that, make a new rollout")
    if halts < halt.halts:
        return Refusal(
            Refused.HALTED,
            f"{name}: was halted {_when(halt)} and the database does not know it; look why, then halt it there too, "
            f"or lift it with 'flagship signer lift {message.rollout} --reason ...'",
        )
    if not reason.strip():
        return Refusal(Refused.HALTED, f"{name}: was halted {_when(halt)}; a reason is needed to go on")
    return None


def judge_offer(
    message: Offer, halt: Halt | None, bound: str | None, *, is_revoked: bool, now: datetime, offline_max: timedelta
) -> Refusal | None:
    """Whether an offer may be signed; arguments as in ``judge_announcement``."""
    if message.grant is Grant.CLOSED:
        return _misfit(message, bound, now, offline_max)
    if is_revoked:
        return Refusal(Refused.REVOKED, f"device {message.device}: was revoked; it is offered nothing")
    misfit = _misfit(message, bound, now, offline_max)
    if misfit is not None:
        return misfit
    if message.offline_until is not None and message.grant is not Grant.DOWNLOAD:
        return Refusal(
            Refused.MISFIT, f"device {message.device}: a medium carries download, the draft says {message.grant}"
        )
    if message.grant is Grant.ACTIVATE and (message.nonce is None or message.grant_s is None):
        return Refusal(Refused.MISFIT, f"device {message.device}: activate must answer a report, by its nonce")
    unasked = message.offline_until is not None or not _answers(message)
    if halt is not None and (message.grant is Grant.ACTIVATE or unasked):
        return Refusal(Refused.HALTED, f"device {message.device}: rollout {message.rollout} was halted {_when(halt)}")
    return None


def _answers(message: Offer) -> bool:
    return message.heard.nonce is not None or message.heard.outcome is not None


def _misfit(message: Announcement | Offer, bound: str | None, now: datetime, offline_max: timedelta) -> Refusal | None:
    name = f"rollout {message.rollout}"
    if bound is not None and bound != message.release.sha256:
        return Refusal(Refused.MISFIT, f"{name}: brings release {bound[:16]}, the draft names another")
    if message.offline_until is not None:
        return _offline_misfit(message, now, offline_max)
    if not now < message.expires <= now + MAX_LEASE:
        return Refusal(
            Refused.MISFIT, f"{name}: expires {message.expires.isoformat()}, expected within seven days from now"
        )
    return None


def _offline_misfit(message: Announcement | Offer, now: datetime, offline_max: timedelta) -> Refusal | None:
    name = f"rollout {message.rollout}"
    if message.expires != message.offline_until:
        return Refusal(Refused.MISFIT, f"{name}: a medium's order expires when its time offline ends")
    if not now < message.expires <= now + offline_max + _WAITED:
        return Refusal(
            Refused.MISFIT,
            f"{name}: offline until {message.expires.isoformat()}, expected within "
            f"{offline_max.total_seconds() / 86_400:g} d from now; [signer] offline_max_s in config.toml is the limit",
        )
    return None


def _when(halt: Halt) -> str:
    why = f" ({halt.reason})" if halt.reason else ""
    return f"{halt.at.isoformat(timespec='seconds')}{why}"
