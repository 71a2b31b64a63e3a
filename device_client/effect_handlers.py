"""For each effect, the room that carries it out; every result and every failure comes back as one event.

Work that changes the device (install, activate, health, commit, roll back, clean up) runs one at a time, in order.
Fetching runs beside it and can be stopped. Nothing here decides: the machine does.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from device_client.agent import events as ev
from device_client.agent.effects import Effect
from device_client.agent.journal import Update
from device_client.agent.runner import Runner
from device_client.changes import RETRY_S, Changes
from device_client.gate_keeper import GateKeeper
from device_client.judging import Judging
from device_client.reporter import Reporter
from device_client.transfer import Fetcher
from device_client.verification.release import Verifier
from protocol.errors import ErrorCode, FlagshipError, ProtocolError
from protocol.states import Phase, State
from protocol.trust.trusted import ReleaseTarget

log = structlog.get_logger(__name__)

Work = Callable[[Update], Awaitable[None]]
_APPROVED = frozenset({State.INSTALLING, State.VERIFYING})
"""Reports of these say who agreed: to the install, and to the activation before it was verified."""
_NOT_YET = frozenset({ErrorCode.WITHHELD, ErrorCode.FREEZE})


class EffectHandlers:
    """Carries effects out for one device."""

    def __init__(
        self,
        runner: Runner,
        verifier: Verifier,
        changes: Changes,
        keeper: GateKeeper,
        fetcher: Fetcher,
        reporter: Reporter,
        inventory_changed: Callable[[], Awaitable[None]],
        refused: Callable[[str, ProtocolError], None],
        group: asyncio.TaskGroup,
        approved_by: Callable[[Update], str] = lambda _: "",
    ) -> None:
        """Name the rooms.

        Args:
            approved_by: Which person agreed to what is done now, for the orchestrator; empty where none was asked.
            refused: Told of each order, by its rollout, that was refused by a code: who gave it may not be the one who
                hears the outcome.
        """
        self._runner = runner
        self._verifier = verifier
        self._changes = changes
        self._judging = Judging(keeper, verifier.clock)
        self._fetcher = fetcher
        self._reporter = reporter
        self._inventory_changed = inventory_changed
        self._refused = refused
        self._group = group
        self._approved_by = approved_by
        self._one_at_a_time = asyncio.Lock()
        self._fetching: asyncio.Task[None] | None = None
        self._is_judging = False

    def start(self, effect: Effect, update: Update) -> None:
        """Begin an effect without waiting for it."""
        match effect:
            case Effect.JUDGE_GATES:
                if not self._is_judging:
                    self._is_judging = True
                    self._spawn(self._judge, update, ErrorCode.INSTALL)
            case Effect.FETCH:
                self._stop_fetching()
                self._fetching = self._spawn(self._fetch, update, ErrorCode.CHUNK)
            case Effect.STOP_FETCHING:
                self._stop_fetching()
            case Effect.REPORT_STATE:
                self._spawn(self._report_state, update)
            case Effect.REPORT_READINESS:
                self._spawn(self._report_readiness, update)
            case Effect.EVALUATE:
                self._spawn(self._evaluate, update, ErrorCode.METADATA)
            case Effect.INSTALL:
                self._spawn_in_order(self._install, update, ErrorCode.INSTALL)
            case Effect.ACTIVATE:
                self._spawn_in_order(self._activate, update, ErrorCode.INSTALL)
            case Effect.CHECK_HEALTH:
                self._spawn_in_order(self._check_health, update, ErrorCode.HEALTH)
            case Effect.COMMIT:
                self._spawn_in_order(self._commit, update, ErrorCode.INSTALL)
            case Effect.ROLL_BACK:
                self._spawn_in_order(self._roll_back, update, ErrorCode.INSTALL)
            case Effect.CLEAN_UP:
                self._spawn_in_order(self._changes.clean_up, update)
            case Effect.FORGET:
                raise RuntimeError("the runner forgets by itself")

    def runs_offered(self, update: Update) -> bool:
        """Whether the offered release is the active one. Blocking."""
        return self._changes.runs(update.offer.release)

    def begin_idle(self) -> None:
        """No update is open: what is on trial, or staged, has lost its journal and is nobody's. Blocking."""
        self._changes.begin_idle()

    def connection_lost(self) -> None:
        """Tell the machine when a transfer was cut; at the agent's own end there is no one left to tell."""
        update, fetching = self._runner.update, self._fetching
        if update and fetching and not fetching.done() and not fetching.cancelling():
            self._spawn(self._interrupted, update)

    async def _evaluate(self, update: Update) -> None:
        try:
            target = await self._trusted_target(update, update.offer.attempt)
        except ProtocolError as error:
            await self._refuse(update, error)
            return
        if target is None:
            return
        info = target.info
        running = await asyncio.to_thread(self._changes.running_version)
        # What left the factory was described by no manifest; there the version decides.
        if running == info.version or await asyncio.to_thread(self._changes.runs, update.offer.release):
            await self._post_if_current(update, ev.AlreadyRuns(info.component, info.version))
        else:
            await self._post_if_current(update, ev.Fits(info.component, info.version, running))

    async def _trusted_target(self, update: Update, attempt: int | None) -> ReleaseTarget | None:
        """Wait until trust is fresh: what cannot be judged yet is neither taken nor refused.

        Returns:
            None when the update has moved on meanwhile.
        """
        while self._is_current(update):
            try:
                return await asyncio.to_thread(self._verifier.check, update.offer.release, attempt)
            except ProtocolError as error:
                if error.code not in _NOT_YET:
                    raise
            await asyncio.sleep(RETRY_S)
        return None

    async def _judge(self, update: Update) -> None:
        try:
            judged = await self._judging.judge(update)
        except ProtocolError as error:
            if error.code in _NOT_YET:
                return  # judged again at the next tick
            await self._refuse(update, error)
            return
        finally:
            self._is_judging = False
        judgement = judged.judgement
        declined = next((r for r in judgement.refusals if r.code == "declined"), None)
        if declined:
            await self._post_if_current(update, ev.Declined(declined.detail))
        elif judgement.refusals:
            first = judgement.refusals[0]
            await self._post_if_current(update, ev.Refused(ErrorCode.UNSAFE, f"{first.gate}: {first.detail}"))
        elif not judged.is_open:
            await self._post_if_current(update, ev.GatesShut(judgement.reasons))
        else:
            unasked = update.offer.offline_until is not None
            opened = ev.GatesOpenOffline() if unasked else ev.GatesOpen(judged.forced)
            await self._post_if_current(update, opened)

    async def _fetch(self, update: Update) -> None:
        async with self._one_at_a_time:
            pass  # what is being cleaned up is not fetched into
        fetched = await self._fetcher.fetch(update)
        await self._post_if_current(update, ev.Fetched(fetched))

    async def _is_still_open(self, update: Update, phase: Phase) -> bool:
        """Whether the gates are open right before what they guard; if not, the machine knows."""
        judged = await self._judging.judge_again(update, phase)
        if judged is None or judged.is_open:
            return judged is None or self._is_current(update)
        log.info("turned away", state=update.state.value, gates=[reason.gate for reason in judged.judgement.reasons])
        await self._post_if_current(update, ev.TurnedAway(judged.judgement.reasons))
        return False

    async def _install(self, update: Update) -> None:
        if not await self._is_still_open(update, Phase.INSTALL):
            return
        await self._changes.install(update)
        await self._runner.post(ev.Installed())

    async def _activate(self, update: Update) -> None:
        if not await self._is_still_open(update, Phase.ACTIVATE):
            return
        await self._changes.activate(update)
        await self._runner.post(ev.Activated())
        self._spawn(self._say_inventory, update)

    async def _check_health(self, update: Update) -> None:
        # After a long time without power trust may be stale for a moment; that is no fault of what runs.
        target = await self._trusted_target(update, None)
        if target is None:
            return
        result = await self._changes.prove(update, target)
        if result.ok:
            await self._runner.post(ev.HealthPassed(result.log))
        else:
            await self._failed(update, ErrorCode.HEALTH, result.detail, result.log)

    async def _commit(self, update: Update) -> None:
        await self._changes.commit(update)
        await self._runner.post(ev.Committed())

    async def _roll_back(self, update: Update) -> None:
        await self._changes.return_to_former(update)
        await self._runner.post(ev.RolledBack())
        self._spawn(self._say_inventory, update)

    async def _report_state(self, update: Update) -> None:
        running = await asyncio.to_thread(self._changes.running_version)
        if update.state in _APPROVED and not update.detail:
            update = update.model_copy(update={"detail": self._approved_by(update)})
        await self._reporter.state(update, running)

    async def _report_readiness(self, update: Update) -> None:
        await self._reporter.readiness(
            update.offer.rollout,
            update.offer.attempt,
            update.nonce,
            update.phase or Phase.DOWNLOAD,
            update.reasons,
            ready=not update.reasons,
            stale=self._verifier.stale or any(reason.code == "lease" for reason in update.reasons),
        )

    async def _say_inventory(self, _update: Update) -> None:
        await self._inventory_changed()

    async def _interrupted(self, update: Update) -> None:
        await self._post_if_current(update, ev.FetchInterrupted())

    def _stop_fetching(self) -> None:
        if self._fetching:
            self._fetching.cancel()
            self._fetching = None

    def _spawn_in_order(self, work: Work, update: Update, code: ErrorCode | None = None) -> None:
        async def in_order(update: Update) -> None:
            async with self._one_at_a_time:
                await work(update)

        self._spawn(in_order, update, code)

    def _spawn(self, work: Work, update: Update, code: ErrorCode | None = None) -> asyncio.Task[None]:
        return self._group.create_task(self._guarded(work, update, code))

    async def _guarded(self, work: Work, update: Update, code: ErrorCode | None) -> None:
        """Nothing that fails in here ends the agent; what has a code becomes an event."""
        try:
            await work(update)
        except ProtocolError as error:
            log.warning("effect failed", code=error.code.value, why=error.detail)
            if code:
                self._tell(update, error)
                await self._failed(update, error.code, error.detail, getattr(error, "log", ""))
        except (FlagshipError, OSError) as error:
            log.warning("effect failed", why=str(error)[:500])
            if code:
                await self._failed(update, code, str(error)[:500])
        except Exception:
            log.exception("effect broke")
            if code:
                await self._failed(update, code, "internal error; the agent's log has the details")

    async def _refuse(self, update: Update, error: ProtocolError) -> None:
        self._tell(update, error)
        await self._post_if_current(update, ev.Refused(error.code, error.detail))

    def _tell(self, update: Update, error: ProtocolError) -> None:
        if self._is_current(update):
            self._refused(update.offer.rollout, error)

    async def _failed(self, update: Update, code: ErrorCode, detail: str, text: str = "") -> None:
        """A failure of what was given up meanwhile, by an abort or a deadline, is none."""
        await self._post_if_current(update, ev.Failed(code, detail, text))

    async def _post_if_current(self, update: Update, event: ev.Event) -> None:
        """What was found out about a place that has passed meanwhile says nothing."""
        if self._is_current(update):
            await self._runner.post(event)

    def _is_current(self, update: Update) -> bool:
        now = self._runner.update
        return now is not None and _place(now) == _place(update)


def _place(update: Update) -> tuple[object, ...]:
    return update.state, update.phase, update.offer.rollout, update.offer.attempt
