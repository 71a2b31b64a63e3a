"""Which gates there are, and the strictest policy they are judged by.

Two of them are orders, not facts of the device: the rollout's announcement must say install and its lease must be
alive. They are gates all the same, so that a halt and a silent orchestrator show up as reasons like any other.
"""

import asyncio
from collections.abc import Mapping, Sequence

from device_client.config import DeviceSettings
from device_client.gates.gate import Gate, GateContext, Judgement, Ready, Verdict, Wait, judge_all
from device_client.gates.policy import asks_for_less, strictest
from device_client.verification.release import Verifier
from protocol.clock import rfc3339
from protocol.directives import Action, Announcement, ReleaseRef
from protocol.states import Phase


class GateKeeper:
    """Judges all gates of one phase of one rollout."""

    def __init__(
        self,
        gates: Sequence[Gate],
        settings: DeviceSettings,
        verifier: Verifier,
        announcements: Mapping[str, Announcement],
    ) -> None:
        self._gates = gates
        self._settings = settings
        self._verifier = verifier
        self._announcements = announcements

    async def judge(self, rollout: str, release: ReleaseRef, phase: Phase) -> Judgement:
        """All gates.

        Raises:
            TrustError: The release is not listed any more, or does not fit.
        """
        target = await asyncio.to_thread(self._verifier.check, release)
        announcement = self._announcements.get(rollout)
        own, manifest = self._settings.policy(), target.info.policy
        asked = announcement.policy if announcement else strictest()
        less = asks_for_less(asked, strictest(own, manifest))
        context = GateContext(
            phase=phase,
            rollout=rollout,
            need_bytes=target.info.space_bytes if phase is not Phase.ACTIVATE else 0,
            policy=strictest(own, manifest, asked),
            manifest_digest=release.sha256,
        )
        order = _OrderGate(announcement, self._verifier, less)
        return await judge_all([order, *self._gates], context)


class _OrderGate:
    """The announcement: install, in time, and asking for no less than the device and the manifest do."""

    name = "order"

    def __init__(self, announcement: Announcement | None, verifier: Verifier, less: tuple[str, ...]) -> None:
        self._announcement = announcement
        self._verifier = verifier
        self._less = less

    async def judge(self, context: GateContext) -> Verdict:
        """Wait on a hold, an expired lease, or an order that asks for less safety (E_UNSAFE)."""
        announcement = self._announcement
        if announcement is None:
            return Wait("lease", f"no announcement of rollout {context.rollout} has come")
        if announcement.expires <= self._verifier.now():
            return Wait("lease", f"the lease ran out at {rfc3339(announcement.expires)}; none newer came")
        if announcement.action is not Action.INSTALL:
            return Wait("hold", f"rollout {context.rollout} is on {announcement.action}")
        if self._less:
            return Wait("e_unsafe", f"the order asks for less than this device demands: {', '.join(self._less)}")
        return Ready()
