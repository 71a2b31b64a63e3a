"""A whole update in one process: the real machine, journal, keys, files and installer; only the broker is not there."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from device_client.agent import events as ev
from device_client.agent.effects import Effect
from device_client.agent.journal import Journal, Update
from device_client.agent.runner import Runner
from device_client.changes import Changes
from device_client.download.sources import Collected
from device_client.effect_handlers import EffectHandlers
from device_client.gate_keeper import GateKeeper
from device_client.gates.gate import GateContext, Ready, Refuse, Verdict, Wait
from device_client.last_update import LastUpdate
from protocol.directives import Action, Grant, Heard
from protocol.errors import ErrorCode
from protocol.states import OUTCOMES, Phase, State
from tests.device_client.lab import Lab, SealedRelease, Shelf, open_below, until


@dataclass
class Door:
    """A gate that the test opens and shuts."""

    name: str = "door"
    verdicts: dict[Phase, Verdict] = field(default_factory=dict)

    async def judge(self, context: GateContext) -> Verdict:
        """As the test says."""
        return self.verdicts.get(context.phase, Ready())


class Power(Journal):
    """A journal under which the power goes at a given save: just before it is on the disk, or just after."""

    def __init__(self, path: Path, save: int, *, after: bool) -> None:
        super().__init__(path)
        self.left, self.after = save, after

    def save(self, update: Update | None) -> None:
        """Save, until the power goes."""
        self.left -= 1
        if self.left >= 0 or self.after:
            super().save(update)
        if self.left < 0:
            raise PowerCut


class PowerCut(Exception):  # noqa: N818 - no error of ours
    """Everything that runs is gone."""


class Leaving(Shelf):
    """A source that gives nothing, and needs a moment to go when it is told to, as one on a connection does."""

    async def collect(self, cids: Sequence[str], silence_s: float) -> Collected:
        """Wait for ever."""
        self.asked += 1
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
        return Collected({})


@dataclass
class Device:
    """A lab's device with a running machine."""

    lab: Lab
    group: asyncio.TaskGroup
    door: Door = field(default_factory=Door)
    inventories: int = 0
    inventory_failure: Exception | None = None
    refused: list[tuple[str, ErrorCode]] = field(default_factory=list)
    journal: Journal | None = None
    approval: str = ""

    def __post_init__(self) -> None:
        lab = self.lab
        self.runner = Runner(self.journal or Journal(lab.home.journal), lab.settings.timing, lab.clock, Random(1))
        self.keeper = GateKeeper([self.door], lab.settings, lab.verifier, self.runner.announcements)
        last_update = LastUpdate(lab.home.state / "last-update")
        self.changes = Changes(lab.settings.installer, lab.verifier, lab.installer, last_update, lab.fetcher)
        self.handlers = EffectHandlers(
            self.runner,
            lab.verifier,
            self.changes,
            self.keeper,
            lab.fetcher,
            lab.reporter,
            self._inventory,
            lambda rollout, error: self.refused.append((rollout, error.code)),
            self.group,
            lambda _: self.approval,
        )
        self.runner.attach(self.handlers)

    async def _inventory(self) -> None:
        self.inventories += 1
        if self.inventory_failure:
            raise self.inventory_failure

    async def tick(self) -> None:
        """As the service does, but quicker."""
        while True:
            await asyncio.sleep(0.005)
            await self.runner.tick()

    @property
    def update(self) -> Update:
        """The open one."""
        assert self.runner.update is not None
        return self.runner.update

    @property
    def version(self) -> str | None:
        """What runs."""
        return self.changes.running_version()

    async def stands(self, state: State, phase: Phase | None = None) -> None:
        """Wait until the update has come to a place."""
        try:
            await until(lambda: self.runner.update is not None and self.runner.update.state is state)
        except TimeoutError:
            raise AssertionError(f"stands at {self.runner.update}, expected {state}") from None
        if phase:
            await until(lambda: self.update.phase is phase)

    async def offered(self, release: SealedRelease, **changes: Any) -> None:
        """Announcement and offer were accepted."""
        await self.runner.post(self.lab.announcement(release))
        await self.runner.post(self.lab.offer(release, **changes))

    async def granted(self, release: SealedRelease) -> None:
        """The device has asked, and is answered."""
        await self.stands(State.WAITING, Phase.INSTALL)
        await until(lambda: bool(self.update.nonce) and not self.update.reasons)
        nonce = self.update.nonce
        heard = Heard(nonce=nonce)
        await self.runner.post(self.lab.offer(release, Grant.ACTIVATE, nonce=nonce, grant_s=900, heard=heard))

    async def answered(self, release: SealedRelease) -> None:
        """The orchestrator has heard the new version."""
        await self.stands(State.VERIFYING)
        heard = Heard(nonce=self.update.nonce)
        await self.runner.post(self.lab.offer(release, Grant.ACTIVATE, nonce=self.update.nonce, heard=heard))


@asynccontextmanager
async def running(lab: Lab) -> AsyncIterator[Device]:
    """The agent's rooms at work, until the end of the block."""
    tasks = []
    async with asyncio.TaskGroup() as group:
        device = Device(lab, group)
        tasks = [group.create_task(device.runner.run()), group.create_task(device.tick())]
        yield device
        assert not any(task.done() for task in tasks), "the agent ended"
        for task in tasks:
            task.cancel()
        for task in list(group._tasks):
            task.cancel()


def _lab(tmp_path: Path, **sections: Any) -> Lab:
    lab = Lab(tmp_path / "home", sections)
    lab.factory()
    lab.connect()
    return lab


async def test_from_offer_to_success(tmp_path: Path) -> None:
    """Fetched, installed, switched, proven, answered, committed; five reports; counter and time noted; staging gone."""
    lab = _lab(tmp_path)
    release = lab.publish(files={"app": b"new" * 50, "lib": b"more"}, counter=3)
    lab.refresh()
    async with running(lab) as device:
        await device.offered(release)
        await device.granted(release)
        await device.answered(release)
        await device.stands(State.SUCCEEDED)
        await until(lambda: not list(lab.home.staging.iterdir()))
        assert (lab.home.current / "app").read_bytes() == b"new" * 50
        assert lab.verifier.floors.counters == {"app": 3}
        assert LastUpdate(lab.home.state / "last-update")() == lab.clock.now()
        assert lab.installer.status().pending is None
        assert device.inventories == 1
        await until(lambda: lab.line.reports("state")[-1]["state"] == "succeeded")
        said = [report["state"] for report in lab.line.reports("state")]
        assert said == ["fetched", "installing", "verifying", "succeeded"]
        assert lab.line.reports("state")[-1]["running_version"] == "1.1.0"
        closed = lab.offer(release, Grant.CLOSED, heard=Heard(nonce=device.update.nonce, outcome="cd" * 32))
        await device.runner.post(closed)
        await until(lambda: device.runner.update is None)
        assert not lab.home.journal.exists()


async def test_who_approved_goes_with_the_report(tmp_path: Path) -> None:
    """Signed, in the reports of installing and verifying; not in those of other states."""
    lab = _lab(tmp_path)
    release = lab.publish()
    lab.refresh()
    async with running(lab) as device:
        device.approval = "install approved by anna"
        await device.offered(release)
        await device.granted(release)
        await device.answered(release)
        await until(lambda: lab.line.reports("state")[-1]["state"] == "succeeded")
        said = {report["state"]: report["detail"] for report in lab.line.reports("state")}
        assert said == {"fetched": "", "installing": device.approval, "verifying": device.approval, "succeeded": ""}


async def test_what_runs_already_is_not_installed(tmp_path: Path) -> None:
    """The version that left the factory was listed by nobody; a release of that version has nothing to do."""
    lab = _lab(tmp_path)
    release = lab.publish("1.0.0")
    lab.refresh()
    async with running(lab) as device:
        await device.offered(release)
        await device.stands(State.SUCCEEDED)
        assert lab.shelf.asked == 0


@pytest.mark.parametrize(
    ("spoil", "state", "code"),
    [
        ("withdrawn", State.REJECTED, ErrorCode.NOT_RELEASED),
        ("key", State.FAILED, ErrorCode.KEY),
        ("health", State.ROLLED_BACK, ErrorCode.HEALTH),
        ("gate", State.FAILED, ErrorCode.UNSAFE),
        ("declined", State.DECLINED, None),
    ],
)
async def test_each_way_to_fail(tmp_path: Path, spoil: str, state: State, code: ErrorCode | None) -> None:
    """Each leaves the former version running, says why by its code, and clears what was staged."""
    health = ["/bin/sh", "-c", "echo no good; exit 1"] if spoil == "health" else []
    lab = _lab(tmp_path, installer={"health": health})
    release = lab.publish()
    lab.refresh()
    if spoil == "withdrawn":
        del lab.repository.releases.targets[release.ref.path]
        lab.repository.bump()
        lab.refresh()
    async with running(lab) as device:
        if spoil in ("gate", "declined"):
            device.door.verdicts[Phase.DOWNLOAD] = Refuse("declined" if spoil == "declined" else "hot", "no")
        await device.offered(release, **({"key_wrap": "QUJD"} if spoil == "key" else {}))
        if spoil == "health":
            await device.granted(release)
        await device.stands(state)
        assert device.update.code is code
        assert device.version == "1.0.0"
        await until(lambda: not list(lab.home.staging.iterdir()))
        assert lab.verifier.floors.counters == {}
        set_aside = {release.ref.sha256: 1} if spoil == "health" else {}
        assert lab.verifier.floors.quarantine == set_aside
        if spoil == "health":
            assert "no good" in device.update.log
        told = [("r", code)] if spoil in ("withdrawn", "key") else []
        assert device.refused == told, "whoever gave the order, the operator hears that it was refused"


async def test_a_release_that_rolled_back_needs_a_higher_attempt(tmp_path: Path) -> None:
    """It is set aside durably: the same attempt is refused by E_HEALTH, a higher one is taken."""
    lab = _lab(tmp_path)
    release = lab.publish()
    lab.refresh()
    lab.verifier.set_aside(release.ref.sha256, 1)
    async with running(lab) as device:
        await device.offered(release)
        await device.stands(State.REJECTED)
        assert device.update.code is ErrorCode.HEALTH
        await device.runner.post(lab.offer(release, attempt=2))
        await device.stands(State.WAITING, Phase.INSTALL)


async def test_an_order_that_cannot_be_judged_yet(tmp_path: Path) -> None:
    """Without trust an offer is neither taken nor refused; it goes on by itself when trust is there."""
    lab = _lab(tmp_path)
    release = lab.publish()
    async with running(lab) as device:
        await device.offered(release)
        await asyncio.sleep(0.1)
        assert device.update.state is State.EVALUATING
        lab.refresh()
        await device.stands(State.WAITING, Phase.INSTALL)


async def test_stale_trust_after_a_long_sleep_does_not_undo_a_trial(tmp_path: Path) -> None:
    """A device that was off for weeks while verifying waits for fresh trust instead of going back at once."""
    lab = _lab(tmp_path)
    release = lab.publish()
    lab.refresh()
    async with running(lab) as device:
        await device.offered(release)
        await device.granted(release)
        await device.stands(State.VERIFYING)
    lab.clock.advance(10 * 86_400)
    lab.verifier = lab.new_verifier()
    lab.fetcher._verifier = lab.verifier
    async with running(lab) as device:
        await device.stands(State.VERIFYING)
        device.runner.set_connected(connected=True)
        await asyncio.sleep(0.2)
        assert device.update.state is State.VERIFYING
        lab.repository.bump()
        lab.repository.timestamp.expires = lab.clock.now() + timedelta(days=7)
        lab.refresh()
        await device.answered(release)
        await device.stands(State.SUCCEEDED)


async def test_an_abort_in_mid_install(tmp_path: Path) -> None:
    """The write is not torn: it ends, is dropped, and the former version runs; no code, nothing set aside."""
    lab = _lab(tmp_path)
    release = lab.publish(files={f"f{number}": bytes([number]) * 5000 for number in range(200)})
    lab.refresh()
    async with running(lab) as device:
        await device.offered(release)
        await device.granted(release)
        await device.stands(State.INSTALLING)
        await device.runner.post(lab.announcement(release, Action.ABORT))
        await device.stands(State.ROLLED_BACK)
        assert (device.version, device.update.code) == ("1.0.0", None)
        assert lab.verifier.floors.quarantine == {}
        assert sorted(path.name[:5] for path in lab.home.releases.iterdir() if path.name[0] != ".") == ["1.0.0"]


async def test_a_hold_in_mid_transfer_keeps_the_chunks(tmp_path: Path) -> None:
    """A halt stops the transfer; what was fetched is kept, nothing stays open, and it goes on after the resume."""
    lab = _lab(tmp_path)
    release = lab.publish(files={"a": b"one" * 100, "b": b"two" * 100})
    lab.refresh()
    held = next(cid for cid in release.chunks if cid not in lab.verifier.check(release.ref).info.pieces)
    lab.shelf.withheld = {held}
    async with running(lab) as device:
        await device.offered(release)
        await device.stands(State.DOWNLOADING)
        length = release.artifact.length
        await until(lambda: bool((last := lab.fetcher.last) and last.total_bytes == length and last.present_bytes))
        await device.runner.post(lab.announcement(release, Action.HOLD))
        await device.stands(State.WAITING, Phase.DOWNLOAD)
        await until(lambda: [reason.code for reason in device.update.reasons] == ["hold"])
        assert open_below(lab.home.staging) == []
        assert list(lab.home.staging.iterdir())
        lab.shelf.withheld = set()
        await device.runner.post(lab.announcement(release, Action.INSTALL))
        await device.stands(State.WAITING, Phase.INSTALL)
        assert lab.fetcher.last
        assert lab.fetcher.last.resumed_bytes > 0


async def test_shut_gates_wait_and_a_broken_effect_ends_nothing(tmp_path: Path) -> None:
    """Reasons are reported; reports and inventories that cannot be sent, for whatever cause, change nothing."""
    lab = _lab(tmp_path)
    release = lab.publish()
    lab.refresh()
    async with running(lab) as device:
        device.inventory_failure = RuntimeError("a bug")
        device.door.verdicts[Phase.INSTALL] = Wait("closed", "not now")
        lab.line.failure = RuntimeError("another bug")
        await device.offered(release)
        await until(lambda: bool(device.runner.update and device.update.reasons))
        assert [reason.code for reason in device.update.reasons] == ["closed"]
        lab.line.failure = None
        device.door.verdicts.clear()
        lab.clock.advance(lab.settings.timing.gate_interval_s)
        await device.granted(release)
        await device.answered(release)
        await device.stands(State.SUCCEEDED)
        assert device.inventories == 1


async def test_the_end_of_the_agent_in_mid_transfer(tmp_path: Path) -> None:
    """Being told to stop while a transfer runs and the connection closes is an end without an error."""
    lab = _lab(tmp_path)
    release = lab.publish()
    lab.refresh()
    lab.fetcher._sources = leaving = Leaving()
    seen: list[str] = []

    async def agent() -> None:
        async with asyncio.TaskGroup() as group:
            device = Device(lab, group)
            group.create_task(device.runner.run())
            group.create_task(device.tick())
            group.create_task(connection(device))
            await device.offered(release)
            await until(lambda: leaving.asked > 0)
            seen.append("downloading")

    async def connection(device: Device) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            device.handlers.connection_lost()

    task = asyncio.create_task(agent())
    await until(lambda: seen == ["downloading"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_lost_connection_is_counted(tmp_path: Path) -> None:
    """The machine learns of a cut transfer; without one there is nothing to say."""
    lab = _lab(tmp_path)
    release = lab.publish()
    lab.refresh()
    lab.shelf.withheld = set(release.chunks)
    async with running(lab) as device:
        device.handlers.connection_lost()
        await device.offered(release)
        await device.stands(State.DOWNLOADING)
        await until(lambda: lab.shelf.asked > 0)
        device.handlers.connection_lost()
        await until(lambda: device.update.resumed and device.update.resumes == 1)


async def test_what_passed_meanwhile_says_nothing(tmp_path: Path) -> None:
    """A judgement of an attempt that is over does not touch the next one, though state and rollout are the same."""
    lab = _lab(tmp_path)
    release = lab.publish()
    async with running(lab) as device:
        first = Update(offer=lab.offer(release))
        await device.offered(release, attempt=2)
        await device.stands(State.EVALUATING)
        await device.handlers._post_if_current(first, ev.Refused(ErrorCode.HEALTH, "of attempt 1"))
        await asyncio.sleep(0.05)
        assert device.update.state is State.EVALUATING
        with pytest.raises(RuntimeError, match="forgets by itself"):
            device.handlers.start(Effect.FORGET, first)


@pytest.mark.parametrize(
    ("gate", "passes"),
    [("in_use", True), ("hook", True), ("power", False), ("approval", False), ("order", False)],
)
async def test_what_is_forced_after_the_deadline(tmp_path: Path, gate: str, passes: bool) -> None:
    """Where the device's owner allows it, gates that spare people are passed by; those that keep it safe never are."""
    lab = _lab(tmp_path, gates={"deadline_s": 60, "on_deadline": "force", "allow_force": True, "disk_reserve_bytes": 0})
    release = lab.publish(files={"app": b"new"}, counter=3)
    lab.refresh()
    async with running(lab) as device:
        device.door.name = gate
        device.door.verdicts[Phase.INSTALL] = Wait("shut", "not now")
        await device.offered(release)
        await until(lambda: bool(device.runner.update and device.runner.update.reasons))
        assert device.update.waited_s == 0
        device.runner.update = device.update.model_copy(update={"waited_s": 60.0})
        lab.clock.advance(lab.settings.timing.gate_interval_s)
        if not passes:
            await asyncio.sleep(0.1)
            assert device.update.reasons
            return
        device.runner._journal = SlowDisk(lab.home.journal, State.INSTALLING, lambda: lab.clock.advance(2))
        await device.granted(release)
        await device.stands(State.VERIFYING)
        assert device.version == "1.1.0"


class SlowDisk(Journal):
    """A journal that takes its time to note one state, in which something happens."""

    def __init__(self, path: Path, state: State, meanwhile: Callable[[], None]) -> None:
        super().__init__(path)
        self.state, self.meanwhile = state, meanwhile
        self.times = 1

    def save(self, update: Update | None) -> None:
        """Save."""
        super().save(update)
        if update and update.state is self.state and self.times:
            self.times -= 1
            self.meanwhile()


@pytest.mark.parametrize(
    ("state", "phase"), [(State.INSTALLING, Phase.INSTALL), (State.ACTIVATING, Phase.ACTIVATE)], ids=str
)
@pytest.mark.parametrize("gap_s", [2, 0.5], ids=["an old judgement", "a fresh one"])
async def test_gates_are_judged_right_before_what_they_guard(
    tmp_path: Path, state: State, phase: Phase, gap_s: float
) -> None:
    """A gate that shut while the disk was slow is seen before anything is changed; the update goes on when it opens."""
    lab = _lab(tmp_path)
    release = lab.publish(files={"app": b"new"}, counter=3)
    lab.refresh()
    async with running(lab) as device:

        def meanwhile() -> None:
            device.door.verdicts[phase] = Wait("surgery", "in use by a patient")
            lab.clock.advance(gap_s)

        device.runner._journal = SlowDisk(lab.home.journal, state, meanwhile)
        await device.offered(release)
        await device.granted(release)
        if gap_s > 1:
            await until(lambda: device.update.phase is phase and bool(device.update.reasons))
            assert device.update.state is State.WAITING
            assert device.update.reasons[0].code == "surgery"
            assert device.version == "1.0.0"
            assert device.update.installs == (phase is Phase.ACTIVATE)
            await until(lambda: any(report["reasons"] for report in lab.line.reports("readiness")))
            device.door.verdicts.clear()
            lab.clock.advance(lab.settings.timing.gate_interval_s)
            await until(lambda: not device.update.reasons)
            nonce = device.update.nonce
            await device.runner.post(
                lab.offer(release, Grant.ACTIVATE, nonce=nonce, grant_s=900, heard=Heard(nonce=nonce))
            )
        await device.stands(State.VERIFYING)
        assert device.version == "1.1.0"


async def _directs(device: Device, release: SealedRelease) -> None:
    """An orchestrator that repeats what is, answers what it is asked, and hears every outcome."""
    lab = device.lab
    await device.offered(release)
    while True:
        await asyncio.sleep(0.005)
        lab.clock.advance(0.2)
        update = device.runner.update
        if update is None or not update.nonce:
            continue
        heard = Heard(nonce=update.nonce, outcome="cd" * 32 if update.is_over else None)
        asks = update.state is State.WAITING and update.phase is not Phase.DOWNLOAD and not update.reasons
        if update.is_over:
            await device.runner.post(lab.offer(release, Grant.CLOSED, heard=heard))
        elif asks and not update.granted:
            await device.runner.post(lab.offer(release, Grant.ACTIVATE, nonce=update.nonce, grant_s=60, heard=heard))
        elif update.state is State.VERIFYING and not update.heard:
            await device.runner.post(lab.offer(release, Grant.ACTIVATE, nonce=update.nonce, heard=heard))


async def _run_until_idle(lab: Lab, release: SealedRelease, journal: Journal | None = None) -> list[State]:
    """The states on the way; PowerCut when the journal says so."""
    states: list[State] = []
    try:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            device = Device(lab, group, journal=journal)
            for work in (device.runner.run(), device.tick(), _directs(device, release)):
                group.create_task(work)
            while not (states and device.runner.update is None and not list(lab.home.staging.iterdir())):
                if (update := device.runner.update) and states[-1:] != [update.state]:
                    states.append(update.state)
                await asyncio.sleep(0)
            for task in list(group._tasks):
                task.cancel()
    except BaseExceptionGroup as errors:  # not except*: Python 3.11.2 wraps what is raised in it
        if errors.subgroup(PowerCut) is None:
            raise
        raise PowerCut from None
    return states


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder on a file system in memory where there is one: these tests are about order, not about disks."""
    shared = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None))
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("after", [False, True], ids=["before it is on the disk", "after"])
@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
async def test_power_cuts_at_every_step(in_memory: Path, good: bool, after: bool) -> None:
    """Cut at each save of the journal and started again: the same version, the same floors, nothing left behind."""
    cuts, end = 0, False
    while not end:
        lab = _lab(in_memory / str(cuts), installer={"health": ["/bin/true" if good else "/bin/false"]})
        release = lab.publish(files={"app": b"new", "lib": b"more"}, counter=2)
        lab.refresh()
        try:
            await _run_until_idle(lab, release, Power(lab.home.journal, cuts, after=after))
            end = True
        except PowerCut:
            lab.verifier = lab.new_verifier()
            lab.verifier.refresh({})
            lab.fetcher._verifier = lab.verifier
            if not lab.home.journal.exists() and after:
                return  # the outcome was heard and forgotten: that was the last save
            states = await _run_until_idle(lab, release)
            assert (State.SUCCEEDED if good else State.ROLLED_BACK) in (states[-1], _outcome(states))
        running_now = lab.installer.running()
        assert running_now
        assert running_now.version == ("1.1.0" if good else "1.0.0"), f"cut {cuts}"
        assert lab.installer.status().pending is None
        assert lab.verifier.floors.counters == ({"app": 2} if good else {})
        assert lab.verifier.floors.quarantine == ({} if good else {release.ref.sha256: 1})
        cuts += 1
    assert cuts > 10


def _outcome(states: list[State]) -> State | None:
    return next((state for state in states if state in OUTCOMES), None)
