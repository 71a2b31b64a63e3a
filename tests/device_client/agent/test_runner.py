"""The runner: saved before done, repeated until heard, deadlines on the monotonic clock, one update at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from device_client.agent import events as ev
from device_client.agent.effects import Effect
from device_client.agent.journal import Journal, Update
from device_client.agent.runner import Runner
from device_client.config import TimingSection
from protocol.clock import ManualClock
from protocol.directives import Action, Announcement, Grant, Heard, Offer, ReleaseRef, superseded_by
from protocol.errors import ErrorCode
from protocol.states import Phase, State

NOW = datetime(2026, 11, 23, tzinfo=UTC)
TIMING = TimingSection(
    readiness_retry_s=5, readiness_level_s=100, gate_interval_s=7, verify_timeout_s=1000, network_deadline_s=300
)
RELEASE = ReleaseRef(path="cam/1.1.0/manifest", length=1, sha256="ab" * 32, counter=0)


@dataclass
class Device:
    """A runner with a journal on the disk, whose effects are only noted."""

    path: Path
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    done: list[Effect] = field(default_factory=list)
    runs_new: bool = False
    seq: int = 0
    idle_begun: int = 0

    def __post_init__(self) -> None:
        self.journal = Journal(self.path)
        self.runner = Runner(self.journal, TIMING, self.clock, Random(1))
        self.runner.attach(self)

    def start(self, effect: Effect, update: Update) -> None:
        """Note it; by now it must be on the disk."""
        if update.state is self.state:
            saved = Journal(self.path).load()
            assert saved is not None
            assert saved.state is update.state
        self.done.append(effect)

    def runs_offered(self, update: Update) -> bool:
        """As the test says."""
        return self.runs_new

    def begin_idle(self) -> None:
        """Note that it was asked."""
        self.idle_begun += 1

    @property
    def update(self) -> Update:
        """The open one."""
        assert self.runner.update is not None
        return self.runner.update

    @property
    def state(self) -> State:
        """Of the open update, or idle."""
        return self.runner.update.state if self.runner.update else State.IDLE

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for it, not for long."""
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)

    async def posts(self, item: Any, state: State) -> None:
        """Something happens, and the update is to stand somewhere afterwards."""
        await self.runner.post(item)
        await self.until(lambda: self.state is state)
        await self.settles()

    async def settles(self) -> None:
        """All that was posted is dealt with: an event that nobody knows is the last one taken."""
        await self.until(self.runner._queue.empty)
        before = self.runner.update
        for _ in range(20):
            await asyncio.sleep(0.001)
            if self.runner.update is not before:
                before = self.runner.update

    def offer(self, grant: Grant = Grant.DOWNLOAD, **changes: Any) -> Offer:
        """The next offer of the rollout."""
        self.seq += 1
        values: dict[str, Any] = {
            "fleet": "f", "issued": NOW, "rollout": "r", "expires": NOW + timedelta(days=1), "epoch": 1,
            "seq": self.seq, "device": "d", "grant": grant, "release": RELEASE,
        }  # fmt: skip
        return Offer(**(values | changes))

    def announcement(self, action: Action) -> Announcement:
        """What the rollout does."""
        self.seq += 1
        return Announcement(
            fleet="f", issued=NOW, rollout="r", expires=NOW + timedelta(days=1), epoch=1, seq=self.seq,
            release=RELEASE, action=action,
        )  # fmt: skip

    async def comes_to_ask(self) -> None:
        """Everything up to the question for an activate grant."""
        await self.posts(self.offer(), State.EVALUATING)
        await self.posts(ev.Fits("app", "1.1.0", "1.0.0"), State.WAITING)
        await self.posts(ev.GatesOpen(), State.DOWNLOADING)
        await self.posts(ev.Fetched(1), State.FETCHED)
        await self.posts(ev.GatesOpen(), State.WAITING)

    async def comes_to_verify(self) -> None:
        """Everything up to the running new version."""
        await self.comes_to_ask()
        grant = self.offer(Grant.ACTIVATE, nonce=self.update.nonce, grant_s=60, heard=Heard(nonce=self.update.nonce))
        await self.runner.post(grant)
        await self.until(lambda: self.update.granted)
        await self.posts(ev.GatesOpen(), State.INSTALLING)
        await self.posts(ev.Installed(), State.INSTALLED)
        await self.posts(ev.GatesOpen(), State.ACTIVATING)
        await self.posts(ev.Activated(), State.VERIFYING)

    async def ticks(self) -> list[Effect]:
        """What a tick begins."""
        before = len(self.done)
        await self.runner.tick()
        await self.settles()
        return self.done[before:]


@asynccontextmanager
async def _running(path: Path, up_s: float = 0, runs_new: bool = False) -> AsyncIterator[Device]:
    device = Device(path / "journal.json", runs_new=runs_new)
    device.clock.advance(up_s)
    task = asyncio.create_task(device.runner.run())
    try:
        yield device
        assert not task.done(), "the runner ended"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_whole_update(tmp_path: Path) -> None:
    """Each step is on the disk before its effect begins; at the end the device is idle and the journal gone."""
    async with _running(tmp_path) as device:
        await device.comes_to_verify()
        await device.posts(ev.HealthPassed(), State.VERIFYING)
        await device.posts(device.offer(Grant.ACTIVATE, heard=Heard(nonce=device.update.nonce)), State.COMMITTING)
        await device.posts(ev.Committed(), State.SUCCEEDED)
        closed = device.offer(Grant.CLOSED, heard=Heard(nonce=device.update.nonce, outcome="cd" * 32))
        await device.posts(closed, State.IDLE)
        assert device.journal.load() is None
        assert [effect for effect in device.done if effect not in (Effect.JUDGE_GATES, Effect.REPORT_READINESS)] == [
            Effect.EVALUATE, Effect.FETCH, Effect.REPORT_STATE, Effect.REPORT_STATE, Effect.INSTALL, Effect.ACTIVATE,
            Effect.REPORT_STATE, Effect.CHECK_HEALTH, Effect.COMMIT, Effect.CLEAN_UP, Effect.REPORT_STATE,
        ]  # fmt: skip


async def test_a_report_is_repeated_until_heard(tmp_path: Path) -> None:
    """With growing waits, at least every level interval, and not any more once an offer names the nonce."""
    async with _running(tmp_path) as device:
        await device.posts(device.offer(), State.EVALUATING)
        await device.posts(ev.Refused(ErrorCode.HARDWARE, "no"), State.REJECTED)
        repeats, gaps, last = 0, [], 0.0
        for _ in range(400):
            device.clock.advance(2)
            if Effect.REPORT_STATE in await _quick_tick(device):
                repeats += 1
                gaps.append(device.clock.monotonic() - last)
                last = device.clock.monotonic()
        assert repeats > 5
        assert gaps[0] <= 6 < gaps[-1] <= TIMING.readiness_level_s + 2
        outcome = Heard(nonce=device.update.nonce, outcome="cd" * 32)
        await device.posts(device.offer(Grant.CLOSED, heard=outcome), State.IDLE)
        device.clock.advance(10_000)
        assert await device.ticks() == []


async def _quick_tick(device: Device) -> list[Effect]:
    before = len(device.done)
    await device.runner.tick()
    return device.done[before:]


async def test_an_answer_to_another_nonce_is_none(tmp_path: Path) -> None:
    """A replayed grant, or one for a question that was not asked, grants nothing."""
    async with _running(tmp_path) as device:
        await device.comes_to_ask()
        await device.runner.post(device.offer(Grant.ACTIVATE, nonce="somebody-else", grant_s=60))
        await device.settles()
        assert not device.update.granted
        await device.runner.post(ev.GatesOpen())
        await device.settles()
        assert device.state is State.WAITING
        assert Effect.INSTALL not in device.done


async def test_a_grant_runs_out_on_the_monotonic_clock(tmp_path: Path) -> None:
    """Setting the wall clock changes nothing; after its seconds a grant is gone and is asked for anew."""
    async with _running(tmp_path) as device:
        await device.comes_to_ask()
        asked = device.update.nonce
        heard = Heard(nonce=asked)
        await device.runner.post(device.offer(Grant.ACTIVATE, nonce=asked, grant_s=60, heard=heard))
        await device.until(lambda: device.update.granted)
        device.clock.set_wall(NOW + timedelta(days=900))
        await device.ticks()
        assert device.update.granted
        device.clock.advance(61)
        await device.ticks()
        await device.until(lambda: not device.update.granted)
        await device.runner.post(ev.GatesOpen())
        await device.until(lambda: device.update.nonce not in ("", asked))
        assert device.state is State.WAITING
        assert Effect.INSTALL not in device.done


@pytest.mark.parametrize("place", [State.WAITING, State.FETCHED, State.INSTALLED])
async def test_gates_are_judged_again(tmp_path: Path, place: State) -> None:
    """A judgement that was lost or could not be made is made again at the gates' interval, wherever one is awaited."""
    async with _running(tmp_path) as device:
        update = Update(offer=device.offer(), state=place, phase=Phase.INSTALL)
        device.runner.update = update
        device.journal.save(update)
        device.clock.advance(TIMING.gate_interval_s)
        assert await _quick_tick(device) == [Effect.JUDGE_GATES]
        assert await _quick_tick(device) == []
        device.clock.advance(TIMING.gate_interval_s)
        assert await _quick_tick(device) == [Effect.JUDGE_GATES]


@pytest.mark.parametrize(
    ("connected", "deadline_s"), [(True, TIMING.verify_timeout_s), (False, TIMING.network_deadline_s)]
)
async def test_verifying_does_not_wait_for_ever(tmp_path: Path, connected: bool, deadline_s: float) -> None:
    """Without an answer, or without a broker, the device goes back by itself after the deadline, not before."""
    async with _running(tmp_path) as device:
        await device.comes_to_verify()
        device.runner.set_connected(connected=connected)
        device.clock.advance(deadline_s - 1)
        await device.ticks()
        assert device.state is State.VERIFYING
        device.clock.advance(2)
        await device.runner.tick()
        await device.until(lambda: device.state is State.ROLLING_BACK)
        assert device.update.code is ErrorCode.TIMEOUT
        assert device.done[-1] is Effect.ROLL_BACK


async def test_verifying_offline_needs_no_broker(tmp_path: Path) -> None:
    """Where there is no link its absence proves nothing; the proof of its own has the deadline of an answer."""
    async with _running(tmp_path) as device:
        until = NOW + timedelta(days=1)
        await device.posts(device.offer(offline_until=until, expires=until), State.EVALUATING)
        await device.posts(ev.Fits("app", "1.1.0", "1.0.0"), State.WAITING)
        for event, state in (
            (ev.GatesOpenOffline(), State.DOWNLOADING),
            (ev.Fetched(1), State.FETCHED),
            (ev.GatesOpenOffline(), State.INSTALLING),
            (ev.Installed(), State.INSTALLED),
            (ev.GatesOpenOffline(), State.ACTIVATING),
            (ev.Activated(), State.VERIFYING),
        ):
            await device.posts(event, state)
        device.clock.advance(TIMING.network_deadline_s + 1)
        await device.ticks()
        assert device.state is State.VERIFYING
        device.clock.advance(TIMING.verify_timeout_s)
        await device.runner.tick()
        await device.until(lambda: device.state is State.ROLLING_BACK)
        assert device.update.code is ErrorCode.TIMEOUT


async def test_the_next_medium_does_not_wait_for_a_link(tmp_path: Path) -> None:
    """A device that nobody hears takes one medium after the other; each outcome is told when there is a link again."""
    until = NOW + timedelta(days=1)
    medium: dict[str, Any] = {"offline_until": until, "expires": until}
    async with _running(tmp_path) as device:
        for rollout in ("r", "s"):
            await device.posts(device.offer(rollout=rollout, **medium), State.EVALUATING)
            await device.posts(ev.AlreadyRuns("app", "1.1.0"), State.SUCCEEDED)
        assert device.update.offer.rollout == "s"
    async with _running(tmp_path) as device:
        await device.until(device.runner.loaded.is_set)
        assert device.state is State.SUCCEEDED
        (untold,) = device.runner._untold.outcomes
        device.runner.set_connected(connected=True)
        assert Effect.REPORT_STATE in await device.ticks()
        for again in (device.offer(rollout="r"), device.offer(rollout="r", **medium)):
            await device.runner.post(again)
            await device.settles()
            assert device.update.offer.rollout == "s", "what is over is not begun again"
        for rollout, nonce in (("r", untold.nonce), ("s", device.update.nonce)):
            heard = Heard(nonce=nonce, outcome="cd" * 32)
            await device.runner.post(device.offer(Grant.CLOSED, rollout=rollout, heard=heard))
        await device.until(lambda: device.runner.update is None)
        assert device.runner._untold.outcomes == []


async def test_a_restart_while_verifying_has_its_whole_deadline(tmp_path: Path) -> None:
    """On a machine that has been up for long, an agent that starts while verifying does not go back at once."""
    async with _running(tmp_path) as device:
        await device.comes_to_verify()
    async with _running(tmp_path, up_s=1e6, runs_new=True) as device:
        await device.until(lambda: Effect.CHECK_HEALTH in device.done)
        device.clock.advance(TIMING.network_deadline_s - 1)
        await device.ticks()
        assert device.state is State.VERIFYING
        device.clock.advance(2)
        await device.runner.tick()
        await device.until(lambda: device.state is State.ROLLING_BACK)


async def test_a_broker_that_refuses_again_and_again_is_silent(tmp_path: Path) -> None:
    """Attempts that end without a connection do not put the network deadline off."""
    async with _running(tmp_path) as device:
        await device.comes_to_verify()
        for _ in range(10):
            device.clock.advance(TIMING.network_deadline_s / 9)
            device.runner.set_connected(connected=False)
        await device.runner.tick()
        await device.until(lambda: device.state is State.ROLLING_BACK)


async def test_a_restart_goes_on(tmp_path: Path) -> None:
    """Another process finds the update where it was, without its grant."""
    async with _running(tmp_path) as device:
        await device.comes_to_ask()
        await device.runner.post(device.offer(Grant.ACTIVATE, nonce=device.update.nonce, grant_s=60))
        await device.until(lambda: device.update.granted)
    async with _running(tmp_path) as device:
        await device.until(lambda: Effect.JUDGE_GATES in device.done)
        assert (device.state, device.update.phase, device.update.granted) == (State.WAITING, Phase.INSTALL, False)
        await device.runner.post(ev.GatesOpen())
        await device.until(lambda: Effect.REPORT_READINESS in device.done)
        assert Effect.INSTALL not in device.done


async def test_a_trial_without_a_journal_is_given_up(tmp_path: Path) -> None:
    """A lost or damaged journal leaves nobody who knows whether what runs was verified; a whole one leaves it alone."""
    async with _running(tmp_path) as device:
        await device.until(lambda: device.idle_begun == 1)
        await device.comes_to_verify()
    async with _running(tmp_path, runs_new=True) as device:
        await device.until(lambda: Effect.CHECK_HEALTH in device.done)
        assert device.idle_begun == 0
    (tmp_path / "journal.json").write_bytes(b"{")
    async with _running(tmp_path) as device:
        await device.until(lambda: device.idle_begun == 1)
        assert device.runner.update is None


async def test_one_update_at_a_time(tmp_path: Path) -> None:
    """A second rollout waits until the first one's outcome was heard; a closed or expired one is not begun."""
    async with _running(tmp_path) as device:
        await device.posts(device.offer(), State.EVALUATING)
        late = NOW - timedelta(days=1)
        for rollout, grant, expires in (
            ("r2", Grant.CLOSED, None), ("r3", Grant.DOWNLOAD, late), ("r4", Grant.DOWNLOAD, None),
        ):  # fmt: skip
            changes = {"rollout": rollout} | ({"expires": expires} if expires else {})
            await device.runner.post(device.offer(grant, **changes))
        await device.settles()
        assert device.update.offer.rollout == "r"
        await device.posts(ev.Refused(ErrorCode.HARDWARE, "no"), State.REJECTED)
        heard = Heard(nonce=device.update.nonce, outcome="cd" * 32)
        await device.posts(device.offer(Grant.CLOSED, heard=heard), State.EVALUATING)
        assert (device.update.offer.rollout, device.state) == ("r4", State.EVALUATING)


@pytest.mark.parametrize("place", [State.EVALUATING, State.WAITING, State.DOWNLOADING, State.FETCHED])
@pytest.mark.parametrize("held", [True, False], ids=["held", "later"])
async def test_a_preempting_rollout(tmp_path: Path, place: State, held: bool) -> None:
    """The open update ends as superseded, says so until heard, and makes way: for an offer here or one to come."""
    async with _running(tmp_path) as device:
        await _comes_to(device, place)
        other = device.offer(rollout="r-2", release=RELEASE.model_copy(update={"path": "cam/1.2.0/manifest"}))
        if held:
            await device.runner.post(other)
            await device.settles()
            assert (device.update.offer.rollout, device.state) == ("r", place), "one at a time"
        await device.posts(device.offer(Grant.CLOSED, reason=superseded_by("r-2")), State.SUPERSEDED)
        assert (device.update.detail, device.update.code) == ("superseded by rollout r-2", None)
        assert device.done[-2:] == [Effect.CLEAN_UP, Effect.REPORT_STATE]
        assert (Effect.STOP_FETCHING in device.done) == (place is State.DOWNLOADING)
        device.clock.advance(TIMING.readiness_retry_s * 3)
        assert Effect.REPORT_STATE in await device.ticks(), "said again while nobody heard it"
        heard = Heard(nonce=device.update.nonce, outcome="cd" * 32)
        closed = device.offer(Grant.CLOSED, reason=superseded_by("r-2"), heard=heard)
        await device.posts(closed, State.EVALUATING if held else State.IDLE)
        if not held:
            await device.posts(other, State.EVALUATING)
        assert device.update.offer == other
        await device.runner.post(closed)
        await device.settles()
        assert device.update.offer == other, "what is over stays over"
        await device.posts(ev.Fits("app", "1.2.0", "1.0.0"), State.WAITING)
        await device.posts(ev.GatesOpen(), State.DOWNLOADING)


async def test_an_offer_that_is_closed_for_no_other(tmp_path: Path) -> None:
    """A rollout's end cancels, also where its reason speaks of another."""
    async with _running(tmp_path) as device:
        await device.posts(device.offer(), State.EVALUATING)
        await device.posts(device.offer(Grant.CLOSED, reason="not superseded by anything"), State.CANCELLED)


async def _comes_to(device: Device, place: State) -> None:
    way = (
        (device.offer(), State.EVALUATING),
        (ev.Fits("app", "1.1.0", "1.0.0"), State.WAITING),
        (ev.GatesOpen(), State.DOWNLOADING),
        (ev.Fetched(1), State.FETCHED),
    )
    for item, state in way:
        await device.posts(item, state)
        if state is place:
            return


async def test_an_illegal_event_ends_nothing(tmp_path: Path) -> None:
    """What comes out of place is dropped, with or without an update."""
    async with _running(tmp_path) as device:
        await device.runner.post(ev.Committed())
        await device.posts(device.offer(), State.EVALUATING)
        await device.runner.post(ev.Committed())
        await device.posts(device.announcement(Action.HOLD), State.EVALUATING)
        await device.posts(device.announcement(Action.ABORT), State.CANCELLED)
        await device.posts(device.announcement(Action.INSTALL), State.CANCELLED)


async def test_a_higher_attempt_after_an_outcome(tmp_path: Path) -> None:
    """An operator's second attempt replaces an outcome that was not heard yet; a lower one does not."""
    async with _running(tmp_path) as device:
        await device.posts(device.offer(), State.EVALUATING)
        await device.posts(ev.Refused(ErrorCode.HARDWARE, "no"), State.REJECTED)
        await device.posts(device.offer(attempt=2), State.EVALUATING)
        assert device.update.offer.attempt == 2
        await device.runner.post(device.offer(attempt=1))
        await device.settles()
        assert device.update.offer.attempt == 2


async def test_the_same_grant_again_lasts_no_longer(tmp_path: Path) -> None:
    """A network that repeats one grant again and again cannot hide a halt for longer than its seconds."""
    async with _running(tmp_path) as device:
        await device.comes_to_ask()
        grant = device.offer(Grant.ACTIVATE, nonce=device.update.nonce, grant_s=60)
        for _ in range(3):
            await device.runner.post(grant)
            await device.settles()
            assert device.update.granted
            device.clock.advance(25)
        await device.runner.tick()
        await device.until(lambda: not device.update.granted)
        await device.runner.post(grant)
        await device.runner.post(ev.GatesOpen())
        await device.settles()
        assert Effect.INSTALL not in device.done


async def test_a_grant_that_ran_out_opens_nothing(tmp_path: Path) -> None:
    """Gates that open after the grant's last second install nothing, even before a tick has noticed."""
    async with _running(tmp_path) as device:
        await device.comes_to_ask()
        await device.runner.post(device.offer(Grant.ACTIVATE, nonce=device.update.nonce, grant_s=60))
        await device.until(lambda: device.update.granted)
        device.clock.advance(60)
        await device.runner.post(ev.GatesOpen())
        await device.settles()
        assert (device.state, device.update.granted) == (State.WAITING, False)
        assert Effect.INSTALL not in device.done


async def test_an_abort_that_overtakes_the_offer(tmp_path: Path) -> None:
    """An offer of a rollout that is known to be aborted ends as cancelled at once; it does not wait for ever."""
    async with _running(tmp_path) as device:
        await device.runner.post(device.announcement(Action.ABORT))
        await device.posts(device.offer(), State.CANCELLED)
        assert device.update.detail == "the rollout was aborted"
        assert Effect.REPORT_STATE in device.done


async def test_a_lease_that_ends_stops_the_transfer(tmp_path: Path) -> None:
    """An orchestrator that is silent, or is kept silent, stops what it began; a renewed lease lets it go on."""
    async with _running(tmp_path) as device:
        await device.runner.post(device.announcement(Action.INSTALL))
        await device.posts(device.offer(), State.EVALUATING)
        await device.posts(ev.Fits("app", "1.1.0", "1.0.0"), State.WAITING)
        await device.posts(ev.GatesOpen(), State.DOWNLOADING)
        await device.ticks()
        assert device.state is State.DOWNLOADING
        device.clock.advance(86_400)
        await device.runner.tick()
        await device.until(lambda: (device.state, device.update.phase) == (State.WAITING, Phase.DOWNLOAD))
        assert Effect.STOP_FETCHING in device.done


async def test_a_closed_offer_in_mid_install(tmp_path: Path) -> None:
    """The rollout's end reaches a device that is writing: when it has written it goes back, without being asked."""
    async with _running(tmp_path) as device:
        await device.comes_to_ask()
        await device.runner.post(device.offer(Grant.ACTIVATE, nonce=device.update.nonce, grant_s=60))
        await device.until(lambda: device.update.granted)
        await device.posts(ev.GatesOpen(), State.INSTALLING)
        await device.posts(device.offer(Grant.CLOSED, reason="ended"), State.INSTALLING)
        await device.posts(ev.Installed(), State.ROLLING_BACK)
        assert device.done[-1] is Effect.ROLL_BACK


async def test_a_finished_attempt_is_not_begun_again(tmp_path: Path) -> None:
    """An outcome that was heard by an offer that is not closed: the device is idle, and does not start from the top."""
    async with _running(tmp_path) as device:
        await device.posts(device.offer(), State.EVALUATING)
        await device.posts(ev.Refused(ErrorCode.HARDWARE, "no"), State.REJECTED)
        heard = Heard(nonce=device.update.nonce, outcome="cd" * 32)
        await device.posts(device.offer(Grant.DOWNLOAD, heard=heard), State.IDLE)
        assert device.done.count(Effect.EVALUATE) == 1


async def test_a_disk_that_takes_no_journal(tmp_path: Path) -> None:
    """Nothing is done that could not be saved, nothing that happened is lost, and the agent lives on."""
    async with _running(tmp_path) as device:
        await device.posts(device.offer(), State.EVALUATING)
        blocked = tmp_path / ".journal.json.new"
        blocked.mkdir()
        before = list(device.done)
        await device.runner.post(ev.Fits("app", "1.1.0", "1.0.0"))
        await asyncio.sleep(0.1)
        assert (device.state, device.done) == (State.EVALUATING, before)
        blocked.rmdir()
        await device.until(lambda: device.state is State.WAITING)
        assert device.done[-1] is Effect.JUDGE_GATES


async def test_an_outcome_that_does_not_fit_the_disk_makes_room(tmp_path: Path) -> None:
    """A disk that staging has filled: what is staged for an update that is over is cleared before it is saved."""
    async with _running(tmp_path) as device:
        await device.posts(device.offer(), State.EVALUATING)
        await device.posts(ev.Fits("app", "1.1.0", "1.0.0"), State.WAITING)
        await device.posts(ev.GatesOpen(), State.DOWNLOADING)
        blocked = tmp_path / ".journal.json.new"
        blocked.mkdir()
        await device.runner.post(ev.Failed(ErrorCode.SPACE, "the disk is full"))
        await device.until(lambda: Effect.CLEAN_UP in device.done)
        assert device.state is State.DOWNLOADING
        blocked.rmdir()
        await device.until(lambda: device.state is State.FAILED)
