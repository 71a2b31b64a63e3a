"""For each effect, the room that carries it out; every result and every failure comes back as one event.

Work that changes the device (install, activate, health, commit, roll back, clean up) runs one at a time, in order.
Fetching runs beside it and can be stopped. Nothing here decides: the machine does.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from device_client.agent import events as ev
from device_client.agent.effects import Effect
from device_client.agent.journal import Update
from device_client.agent.runner import Runner
from device_client.config import DeviceSettings
from device_client.errors import DeviceError
from device_client.gate_keeper import GateKeeper
from device_client.installers.installer import Installer
from device_client.last_update import LastUpdate
from device_client.reporter import Reporter
from device_client.transfer import Fetcher
from device_client.verification.files import check_tree
from device_client.verification.release import Verifier
from device_client.verification.running import run_health
from protocol.directives import ReleaseRef
from protocol.errors import ErrorCode, FlagshipError, ProtocolError
from protocol.states import Phase
from protocol.trust.trusted import ReleaseTarget

log = structlog.get_logger(__name__)

_NOT_YET = frozenset({ErrorCode.WITHHELD, ErrorCode.FREEZE})
_RETRY_S = 1.0


class EffectHandlers:
    """Carries effects out for one device."""

    def __init__(
        self,
        settings: DeviceSettings,
        runner: Runner,
        verifier: Verifier,
        installer: Installer,
        last_update: LastUpdate,
        keeper: GateKeeper,
        fetcher: Fetcher,
        reporter: Reporter,
        inventory_changed: Callable[[], Awaitable[None]],
        group: asyncio.TaskGroup,
    ) -> None:
        self._settings = settings
        self._runner = runner
        self._verifier = verifier
        self._installer = installer
        self._last_update = last_update
        self._keeper = keeper
        self._fetcher = fetcher
        self._reporter = reporter
        self._inventory_changed = inventory_changed
        self._group = group
        self._one_at_a_time = asyncio.Lock()
        self._fetching: asyncio.Task[None] | None = None
        self._judging = False

    def start(self, effect: Effect, update: Update) -> None:
        """Begin an effect without waiting for it."""
        match effect:
            case Effect.JUDGE_GATES:
                if not self._judging:
                    self._judging = True
                    self._spawn(self._judge(update), update, ErrorCode.INSTALL)
            case Effect.FETCH:
                self._stop_fetching()
                self._fetching = self._spawn(self._fetch(update), update, ErrorCode.CHUNK)
            case Effect.STOP_FETCHING:
                self._stop_fetching()
            case Effect.REPORT_STATE:
                self._spawn(self._report_state(update), update)
            case Effect.REPORT_READINESS:
                self._spawn(self._report_readiness(update), update)
            case Effect.EVALUATE:
                self._spawn(self._evaluate(update), update, ErrorCode.METADATA)
            case Effect.INSTALL:
                self._spawn(self._in_order(self._install, update), update, ErrorCode.INSTALL)
            case Effect.ACTIVATE:
                self._spawn(self._in_order(self._activate, update), update, ErrorCode.INSTALL)
            case Effect.CHECK_HEALTH:
                self._spawn(self._in_order(self._check_health, update), update, ErrorCode.HEALTH)
            case Effect.COMMIT:
                self._spawn(self._in_order(self._commit, update), update, ErrorCode.INSTALL)
            case Effect.ROLL_BACK:
                self._spawn(self._in_order(self._roll_back, update), update, ErrorCode.INSTALL)
            case Effect.CLEAN_UP:
                self._spawn(self._in_order(self._clean_up, update), update)
            case Effect.FORGET:
                raise RuntimeError("the runner forgets by itself")

    def runs_offered(self, update: Update) -> bool:
        """Whether the offered release is the active one. Blocking."""
        return self._runs(update.offer.release)

    def abandon_trial(self) -> None:
        """Without a journal nobody knows whether what is on trial was verified: return to what was. Blocking."""
        try:
            if self._installer.status().pending is not None:
                running = self._installer.rollback()
                log.error("trial without a journal given up", running=running.version if running else None)
        except DeviceError as error:
            log.error("trial without a journal not given up", why=str(error))

    def running_version(self) -> str | None:
        """What runs now, for reports. Blocking."""
        running = self._installer.running()
        return running.version if running else None

    def connection_lost(self) -> None:
        """Tell the machine when a transfer was cut."""
        if self._fetching and not self._fetching.done():
            self._group.create_task(self._runner.post(ev.FetchInterrupted()))

    async def _evaluate(self, update: Update) -> None:
        """Until trust is there: an order that cannot be judged yet is neither taken nor refused."""
        while True:
            try:
                target = await asyncio.to_thread(self._verifier.check, update.offer.release, update.offer.attempt)
                break
            except ProtocolError as error:
                if error.code not in _NOT_YET:
                    await self._runner.post(ev.Refused(error.code, error.detail))
                    return
            await asyncio.sleep(_RETRY_S)
            if self._runner.update is None or self._runner.update.offer.rollout != update.offer.rollout:
                return
        info = target.info
        if await asyncio.to_thread(self._runs_version, update.offer.release, info.version):
            await self._runner.post(ev.AlreadyRuns(info.component, info.version))
        else:
            running = await asyncio.to_thread(self.running_version)
            await self._runner.post(ev.Fits(info.component, info.version, running))

    async def _judge(self, update: Update) -> None:
        try:
            offer = update.offer
            judgement = await self._keeper.judge(offer.rollout, offer.release, update.phase or Phase.DOWNLOAD)
        except ProtocolError as error:
            if error.code in _NOT_YET:
                return  # judged again at the next tick
            await self._post_if_current(update, ev.Refused(error.code, error.detail))
            return
        finally:
            self._judging = False
        declined = next((r for r in judgement.refusals if r.code == "declined"), None)
        if declined:
            await self._post_if_current(update, ev.Declined(declined.detail))
        elif judgement.refusals:
            first = judgement.refusals[0]
            await self._post_if_current(update, ev.Refused(ErrorCode.UNSAFE, f"{first.gate}: {first.detail}"))
        elif judgement.reasons:
            await self._post_if_current(update, ev.GatesShut(judgement.reasons))
        else:
            await self._post_if_current(update, ev.GatesOpen())

    async def _post_if_current(self, update: Update, event: ev.Event) -> None:
        """A judgement of a phase that has passed meanwhile says nothing."""
        now = self._runner.update
        if now and (now.state, now.phase, now.offer.rollout) == (update.state, update.phase, update.offer.rollout):
            await self._runner.post(event)

    async def _fetch(self, update: Update) -> None:
        fetched = await self._fetcher.fetch(update)
        await self._runner.post(ev.Fetched(fetched))

    async def _install(self, update: Update) -> None:
        target = await asyncio.to_thread(self._verifier.check, update.offer.release, update.offer.attempt)
        await asyncio.to_thread(self._install_files, update, target)
        await self._runner.post(ev.Installed())

    def _install_files(self, update: Update, target: ReleaseTarget) -> None:
        artifact, stream = self._fetcher.staged(update, target)
        tree = self._installer.install(stream, artifact, target.info.version, target.sha256)
        check_tree(tree, artifact, self._verifier.executables(artifact, target))

    async def _activate(self, update: Update) -> None:
        await asyncio.to_thread(self._verifier.check, update.offer.release, update.offer.attempt)
        # Before it: a loop of releases that roll back is held off by the same interval.
        await asyncio.to_thread(self._last_update.note, self._verifier.now())
        await asyncio.to_thread(self._installer.activate)
        await self._inventory_changed()
        await self._runner.post(ev.Activated())

    async def _check_health(self, update: Update) -> None:
        """The running version, its files, then the maker's own check."""
        running = await asyncio.to_thread(self._installer.running)
        if running is None or running.digest != update.offer.release.sha256:
            await self._failed(update, ErrorCode.POSTINSTALL, f"{update.version} is not what runs")
            return
        await asyncio.to_thread(self._rehash, update, running.path)
        health = self._settings.installer
        result = await run_health(
            health.health,
            health.health_timeout_s,
            {"FLAGSHIP_RELEASE": str(running.path), "FLAGSHIP_VERSION": update.version},
            running.path if running.path.is_dir() else running.path.parent,
        )
        if result.ok:
            await self._runner.post(ev.HealthPassed(result.log))
        else:
            await self._failed(update, ErrorCode.HEALTH, result.detail, result.log)

    def _rehash(self, update: Update, place: Path) -> None:
        target = self._verifier.check(update.offer.release)
        artifact, _ = self._fetcher.staged(update, target)
        check_tree(place, artifact)

    async def _commit(self, update: Update) -> None:
        await asyncio.to_thread(self._installer.commit)
        while True:  # from here on there is no way back: what is left is tried until the disk takes it
            try:
                await asyncio.to_thread(self._note_commit, update)
                break
            except (FlagshipError, OSError) as error:
                log.error("commit not noted", why=str(error)[:500], retry_s=_RETRY_S)
                await asyncio.sleep(_RETRY_S)
        await self._runner.post(ev.Committed())

    def _note_commit(self, update: Update) -> None:
        self._verifier.committed(update.component, update.offer.release.counter)
        self._last_update.note(self._verifier.now())

    async def _roll_back(self, update: Update) -> None:
        await asyncio.to_thread(self._installer.rollback)
        if update.code is not None:
            await asyncio.to_thread(self._verifier.set_aside, update.offer.release.sha256, update.offer.attempt)
        running = await asyncio.to_thread(self.running_version)
        if running != update.from_version:
            detail = f"{running or 'nothing'} runs, expected {update.from_version or 'nothing'}"
            await self._failed(update, ErrorCode.INSTALL, detail)
            return
        await self._inventory_changed()
        await self._runner.post(ev.RolledBack())

    async def _clean_up(self, update: Update) -> None:
        await asyncio.to_thread(self._fetcher.clear)
        log.info("staging cleared", rollout_id=update.offer.rollout)

    async def _report_state(self, update: Update) -> None:
        await self._reporter.state(update, await asyncio.to_thread(self.running_version))

    async def _report_readiness(self, update: Update) -> None:
        await self._reporter.readiness(
            update.offer.rollout,
            update.offer.attempt,
            update.nonce,
            update.phase or Phase.DOWNLOAD,
            update.reasons,
            ready=not update.reasons,
            stale=self._verifier.stale,
        )

    def _runs(self, ref: ReleaseRef) -> bool:
        return (running := self._installer.running()) is not None and running.digest == ref.sha256

    def _runs_version(self, ref: ReleaseRef, version: str) -> bool:
        # What left the factory was described by no manifest; there the version decides.
        return self._runs(ref) or self.running_version() == version

    def _stop_fetching(self) -> None:
        if self._fetching:
            self._fetching.cancel()
            self._fetching = None

    async def _in_order(self, work: Callable[[Update], Awaitable[None]], update: Update) -> None:
        async with self._one_at_a_time:
            await work(update)

    def _spawn(self, work: Awaitable[None], update: Update, code: ErrorCode | None = None) -> asyncio.Task[None]:
        return self._group.create_task(self._guarded(work, update, code))

    async def _guarded(self, work: Awaitable[None], update: Update, code: ErrorCode | None) -> None:
        """Nothing that fails in here ends the agent; what has a code becomes an event."""
        try:
            await work
        except ProtocolError as error:
            await self._failed(update, error.code, error.detail)
        except (FlagshipError, OSError) as error:
            if code:
                await self._failed(update, code, str(error)[:500])
            else:
                log.warning("effect failed", why=str(error)[:500])
        except Exception:
            log.exception("effect broke")
            if code:
                await self._failed(update, code, "internal error; the agent's log has the details")

    async def _failed(self, update: Update, code: ErrorCode, detail: str, text: str = "") -> None:
        """A failure of what was given up meanwhile, by an abort or a deadline, is none."""
        await self._post_if_current(update, ev.Failed(code, detail, text))
