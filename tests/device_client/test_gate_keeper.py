"""The strictest policy of three, and the order's own gate: hold, lease, or asking for less."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from device_client.gate_keeper import MAX_REMEMBERED, GateKeeper
from device_client.gates.gate import GateContext, Ready, Verdict
from device_client.gates.policy import WindowSet
from protocol.directives import MAX_OFFLINE, Action, Announcement, Offer
from protocol.errors import ErrorCode, ProtocolError
from protocol.manifest import Policy
from protocol.states import Phase
from protocol.windows import DAYS, PolicyWindow
from tests.device_client.lab import Lab, SealedRelease


@dataclass
class Asked:
    """A gate that keeps what it was asked with."""

    name: str = "asked"
    contexts: list[GateContext] = field(default_factory=list)

    async def judge(self, context: GateContext) -> Verdict:
        """Open."""
        self.contexts.append(context)
        return Ready()


@dataclass
class Gates:
    """A keeper and what it knows."""

    lab: Lab
    asked: Asked = field(default_factory=Asked)
    announcements: dict[str, Announcement] = field(default_factory=dict)

    async def codes(
        self, release: SealedRelease, phase: Phase = Phase.INSTALL, offer: Offer | None = None
    ) -> list[str]:
        """Why not."""
        keeper = GateKeeper([self.asked], self.lab.settings, self.lab.verifier, self.announcements)
        return [reason.code for reason in (await keeper.judge("r", release.ref, phase, offer)).reasons]


async def test_the_order_is_a_gate(tmp_path: Path) -> None:
    """No announcement, a hold, an abort and a lease that ran out each keep the device waiting, by their names."""
    gates = Gates(Lab(tmp_path / "home"))
    lab = gates.lab
    release = lab.publish()
    lab.refresh()
    assert await gates.codes(release) == ["lease"]
    for action, expected in ((Action.INSTALL, []), (Action.HOLD, ["hold"]), (Action.ABORT, ["hold"])):
        gates.announcements["r"] = lab.announcement(release, action)
        assert await gates.codes(release) == expected
    gates.announcements["r"] = lab.announcement(release)
    lab.clock.advance(86_400)
    assert await gates.codes(release) == ["lease"]


async def test_the_strictest_of_three(tmp_path: Path) -> None:
    """Device, manifest and announcement are taken together; who asks for more is heard, whoever it is."""
    lab = Lab(tmp_path / "home", {"gates": {"min_battery_percent": 30, "disk_reserve_bytes": 0}})
    gates = Gates(lab)
    release = lab.publish(policy=Policy(min_battery_percent=50))
    lab.refresh()
    gates.announcements["r"] = lab.announcement(release, policy=Policy(min_battery_percent=70, require_approval=True))
    assert await gates.codes(release) == []
    context = gates.asked.contexts[0]
    assert (context.policy.min_battery_percent, context.policy.require_approval) == (70, True)
    assert (context.manifest_digest, context.rollout) == (release.ref.sha256, "r")
    assert context.version == release.version


async def test_windows_of_release_and_rollout_stand_beside_one_another(tmp_path: Path) -> None:
    """Both are handed to the gate, by whose they are; wider ones of the rollout are not unsafe, they add."""
    lab = Lab(tmp_path / "home")
    gates = Gates(lab)
    night = (PolicyWindow(days=("sun",), start="02:00", minutes=60),)
    always = (PolicyWindow(days=DAYS, start="00:00", minutes=1440),)
    release = lab.publish(policy=Policy(windows=night))
    lab.refresh()
    gates.announcements["r"] = lab.announcement(release, policy=Policy(windows=always))
    assert await gates.codes(release) == []
    assert gates.asked.contexts[0].window_sets == (WindowSet("release", night), WindowSet("rollout", always))
    gates.announcements["r"] = lab.announcement(release)
    await gates.codes(release)
    assert gates.asked.contexts[1].window_sets == (WindowSet("release", night),)


async def test_an_order_that_asks_for_less(tmp_path: Path) -> None:
    """A stolen director cannot make a device laxer: it is deferred, told, and judged by the stricter words."""
    lab = Lab(tmp_path / "home", {"gates": {"require_approval": True, "disk_reserve_bytes": 0}})
    gates = Gates(lab)
    release = lab.publish()
    lab.refresh()
    gates.announcements["r"] = lab.announcement(release, policy=Policy(require_approval=False))
    assert await gates.codes(release) == ["e_unsafe"]
    assert gates.asked.contexts[0].policy.require_approval


async def test_room_is_asked_for_while_it_is_needed(tmp_path: Path) -> None:
    """For download and install; what is activated lies on the disk already."""
    gates = Gates(Lab(tmp_path / "home"))
    release = gates.lab.publish()
    gates.lab.refresh()
    for phase in Phase:
        await gates.codes(release, phase)
    assert [context.need_bytes for context in gates.asked.contexts] == [1000, 1000, 0]


async def test_a_release_that_is_gone_is_not_judged(tmp_path: Path) -> None:
    """The offline keys come before any gate."""
    gates = Gates(Lab(tmp_path / "home"))
    release = gates.lab.publish()
    gates.lab.repository.releases.targets.clear()
    gates.lab.refresh()
    with pytest.raises(ProtocolError) as error:
        await gates.codes(release)
    assert error.value.code is ErrorCode.NOT_RELEASED
    assert gates.asked.contexts == []


async def test_what_was_judged_last_is_remembered(tmp_path: Path) -> None:
    """With its phase and time, open gates included; of few rollouts, the newest."""
    gates = Gates(Lab(tmp_path / "home"))
    release = gates.lab.publish()
    gates.lab.refresh()
    gates.announcements["r"] = gates.lab.announcement(release)
    keeper = GateKeeper([gates.asked], gates.lab.settings, gates.lab.verifier, gates.announcements)
    await keeper.judge("r", release.ref, Phase.INSTALL)
    judged = keeper.judged["r"]
    assert (judged.phase, judged.at) == (Phase.INSTALL, gates.lab.clock.now())
    assert [answer.gate for answer in judged.judgement.answers] == ["order", "asked"]
    order = judged.judgement.answers[0].verdict
    assert isinstance(order, Ready)
    assert "lease until" in order.detail
    for number in range(MAX_REMEMBERED):
        await keeper.judge(f"r-{number}", release.ref, Phase.DOWNLOAD)
    assert len(keeper.judged) == MAX_REMEMBERED
    assert "r" not in keeper.judged


async def test_a_medium_needs_the_owners_leave(tmp_path: Path) -> None:
    """Without it an order to act unasked is unsafe, whatever is right about it."""
    gates, release, offer = _offline(tmp_path, allow_offline=False)
    assert await gates.codes(release, offer=offer) == ["e_unsafe"]
    gates, release, offer = _offline(tmp_path, allow_offline=True)
    assert await gates.codes(release, offer=offer) == []


async def test_a_medium_serves_for_its_time(tmp_path: Path) -> None:
    """Until then and no longer; and never longer than any medium may, whoever signed it."""
    gates, release, offer = _offline(tmp_path, allow_offline=True)
    too_long = offer.model_copy(update={"offline_until": offer.issued + MAX_OFFLINE + timedelta(seconds=1)})
    assert await gates.codes(release, offer=too_long) == ["e_unsafe"]
    gates.lab.clock.advance(2 * 86_400)
    assert await gates.codes(release, offer=offer) == ["offline"]


async def test_a_clock_that_is_wrong_cannot_tell_until_when(tmp_path: Path) -> None:
    """It would let a medium serve for ever: nothing is done unasked, and the reason is said."""
    gates, release, offer = _offline(tmp_path, allow_offline=True)
    gates.lab.clock.set_wall(datetime(1970, 1, 1, tzinfo=UTC))
    assert await gates.codes(release, offer=offer) == ["clock"]


async def test_a_medium_s_announcement_is_no_lease_for_a_link(tmp_path: Path) -> None:
    """It lasts for weeks: who is asked before it acts must hear the rollout's present word. A hold holds here too."""
    gates, release, offer = _offline(tmp_path, allow_offline=True)
    assert await gates.codes(release) == ["lease"]
    assert await gates.codes(release, offer=offer.model_copy(update={"offline_until": None})) == ["lease"]
    gates.announcements["r"] = gates.lab.announcement(release, Action.HOLD)
    assert await gates.codes(release, offer=offer) == ["hold"]


def _offline(tmp_path: Path, *, allow_offline: bool) -> tuple[Gates, SealedRelease, Offer]:
    home = tmp_path / ("home-1" if allow_offline else "home-0")
    gates = Gates(Lab(home, {"gates": {"allow_offline": allow_offline, "disk_reserve_bytes": 0}}))
    release = gates.lab.publish()
    gates.lab.refresh()
    until = gates.lab.clock.now() + timedelta(days=2)
    gates.announcements["r"] = gates.lab.announcement(release, offline_until=until, expires=until)
    return gates, release, gates.lab.offer(release, offline_until=until, expires=until)
