"""One agent: builds every room, keeps the connection, runs it all in one TaskGroup. Several may share a process."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from random import Random, SystemRandom

import structlog

from device_client import identity, local_socket
from device_client.agent.journal import Journal
from device_client.agent.runner import Runner
from device_client.agent.waiting import WaitingClock
from device_client.announcement_answers import AnnouncementAnswers
from device_client.approval import ApprovalBook
from device_client.approval_call import ApprovalCall
from device_client.availability import Availability
from device_client.changes import Changes
from device_client.chunk_sources import ChunkSources
from device_client.clock_doubt import ClockDoubt
from device_client.config import DeviceHome, DeviceSettings
from device_client.download.medium_source import MediumSource
from device_client.download.mqtt_source import MqttSource
from device_client.effect_handlers import EffectHandlers
from device_client.enrolling import Returning
from device_client.floors_file import DeviceFloors
from device_client.freshness import Freshness
from device_client.gate_keeper import GateKeeper
from device_client.gate_list import make_gates, make_shutdown_lock
from device_client.heartbeat import Heartbeat
from device_client.home_lock import alone
from device_client.inbox import Inbox
from device_client.inhibit_socket import InhibitDoor
from device_client.installers.making import make_installer
from device_client.integrity import Integrity
from device_client.last_outcome import LastOutcome
from device_client.last_update import LastUpdate
from device_client.local_status import LocalStatus
from device_client.local_verbs import LocalVerbs
from device_client.media_watch import MediaWatch
from device_client.medium_desk import MediumDesk
from device_client.pulse import IDLE_S, TICK_S, Pulse
from device_client.refusals import Refusals
from device_client.renewal import Renewal
from device_client.reporter import Reporter
from device_client.self_report import SelfReport
from device_client.transfer import Fetcher
from device_client.upkeep import Upkeep
from device_client.uplink import Uplink
from device_client.verification.release import Verifier
from protocol.clock import Clock
from protocol.errors import ErrorCode, FlagshipError, ProtocolError
from protocol.mqtt.connection import Session
from protocol.topics import Topics
from protocol.trust.checks import Receiver
from protocol.trust.workflow import TrustStore

log = structlog.get_logger(__name__)


class Agent:
    """One device's agent. Making it blocks for a moment; it reads keys and floors."""

    def __init__(self, home: DeviceHome, settings: DeviceSettings, clock: Clock) -> None:
        self.home = home
        self.settings = settings
        self._random: Random = SystemRandom()
        self._clock = clock
        me, timing = settings.device, settings.timing
        self._enrolment = identity.load_enrolment(home)
        self._topics = Topics(self._enrolment.fleet)
        self._installer = make_installer(home, settings)
        self._verifier = Verifier(
            TrustStore(home.trust, identity.load_root(home)), DeviceFloors(home.state), self._receiver, clock
        )
        believed = self._verifier.clock
        waiting = WaitingClock(settings.gates.deadline_s, expires=settings.gates.on_deadline == "expire")
        self.runner = Runner(Journal(home.journal), timing, clock, self._random, waiting)
        self._verifier.unasked_until = self._unasked_until
        self._reporter = Reporter(self._topics, me.id, identity.load_report_signer(home), believed)
        self._source = MqttSource(self._topics, qos=settings.download.qos)
        self._last_update = LastUpdate(home.state / "last-update")
        self._last_outcome = LastOutcome(home.state / "last-outcome.json")
        self._book = book = ApprovalBook(home.state / "approvals.json", home.approvals)
        self._door, self._pulse = InhibitDoor(), Pulse()
        gates = make_gates(
            home,
            settings,
            book,
            believed,
            way_back=self._installer.way_back,
            last_update=self._last_update,
            held=self._door.held,
            barred=lambda: self._sources.barred(),  # noqa: PLW0108 - made later
        )
        self._keeper = GateKeeper(gates, settings, self._verifier, self.runner.announcements)
        self._refusals = Refusals(clock)
        self._clock_doubt = ClockDoubt(believed, self._refusals)
        self.inbox = Inbox(
            self._topics,
            self._verifier,
            self._source,
            self.runner.post,
            self._say_again,
            self._refusals,
            timing.gate_interval_s,
        )
        fresh = Freshness(self._verifier, self.runner)
        beat = Heartbeat(timing.readiness_level_s, self._random)
        self._self_report = SelfReport(settings, self._installer, fresh, self._refusals, self._reporter, beat, clock)
        self._answers = AnnouncementAnswers(
            self.runner,
            self._keeper,
            self._verifier,
            self._refusals,
            self._reporter,
            Availability(timing.readiness_retry_s, timing.readiness_level_s, self._random),
            clock,
            timing.gate_interval_s,
        )
        medium = MediumSource(timing.gate_interval_s)
        self._desk = MediumDesk(
            me.id, self._verifier, self._refusals, self.runner.post, medium.use, home.state / "medium.json"
        )
        self._sources = ChunkSources(
            home, settings, self._source, self._leave_broker, self._chunk_refused, believed, self._random, medium
        )
        self._fetcher = Fetcher(
            home.staging,
            settings,
            me.id,
            partial(identity.load_content_keys, home),
            self._verifier,
            self._sources,
            self._reporter,
            self._chunk_refused,
            self._random,
            self._installer.streams,
        )
        check_s = settings.installer.check_interval_s
        self._integrity = Integrity(self._installer, self.runner, self._refusals, believed, check_s)
        status = LocalStatus(
            settings,
            self.runner,
            self._installer,
            self._verifier,
            self._fetcher,
            self._reporter,
            self._refusals,
            believed,
            judged=self._keeper.judged,
            last_outcome=self._last_outcome,
            integrity=self._integrity,
            sources=self._sources.standings,
        )
        self._verbs = LocalVerbs(settings, self.runner, book, believed, self._desk, status)
        self._returning = Returning(home, settings, believed, self._random)
        self._uplink = Uplink(
            home,
            settings,
            self._topics,
            self._reporter,
            believed,
            self._random,
            self._converse,
            self._before_connecting,
        )
        self._renewal = Renewal(home, settings, self._topics, self._reporter, believed, self._random, self._uplink.turn)
        self._upkeep = Upkeep(home, settings, self._verifier, self.runner, self._uplink, self._refusals)
        self._handlers: EffectHandlers | None = None

    async def run(self) -> None:
        """Run until cancelled.

        Raises:
            ConflictError: Another agent runs on this home; nothing of it was touched.
        """
        structlog.contextvars.bind_contextvars(device_id=self.settings.device.id)
        with alone(self.home.lock):
            await self._run()

    async def _run(self) -> None:
        try:
            await asyncio.to_thread(self._verifier.refresh, {})
        except (FlagshipError, OSError) as error:
            log.info("no trust stored yet", why=str(error)[:500])
        changes = Changes(
            self.settings.installer,
            self._verifier,
            self._installer,
            self._last_update,
            self._fetcher,
            lock=make_shutdown_lock(self.settings),
            last_outcome=self._last_outcome,
        )
        async with asyncio.TaskGroup() as group:
            self._handlers = EffectHandlers(
                self.runner,
                self._verifier,
                changes,
                self._keeper,
                self._fetcher,
                self._reporter,
                self._self_report.send,
                self._refusals.add,
                group,
                self._book.approved_by,
            )
            self.runner.attach(self._handlers)
            group.create_task(self._once_loaded(local_socket.serve, self.home.socket, self._verbs.answer))
            group.create_task(self._door.serve(self.home.inhibit_socket))
            group.create_task(self._sources.watch_links())
            group.create_task(self.runner.run())
            group.create_task(self._once_loaded(self._desk.restore))
            group.create_task(MediaWatch(self.settings.media, self.settings.device.id, self._desk).run())
            group.create_task(self.inbox.run())
            group.create_task(self._uplink.run())
            group.create_task(self._tick())
            group.create_task(self._answer())
            group.create_task(self._integrity.run())
            gates = self.settings.gates
            late_s = gates.deadline_s if gates.on_deadline == "ask" else 0
            call = ApprovalCall(gates.notify, self.home, self.runner, self._keeper.judged, late_s)
            group.create_task(call.run())

    def standing(self) -> str:
        """Connected or not and what is under way, in a few words."""
        update, link = self.runner.update, "connected" if self._reporter.is_connected else "not connected"
        doing = f"rollout {update.offer.rollout} {update.state}" if update else "no update is open"
        return f"{self.settings.device.id}: {link}, {doing}"

    async def _once_loaded(self, work: Callable[..., Awaitable[None]], *words: object) -> None:
        await self.runner.loaded.wait()  # before that nobody knows which update is open
        await work(*words)

    def _unasked_until(self) -> datetime | None:
        update = self.runner.update
        is_open = update is not None and not update.is_over and self.settings.gates.allow_offline
        return update.offer.offline_until if update and is_open else None

    async def _before_connecting(self, failures: int) -> None:
        self._clock_doubt.look()  # so that the first inventory says it
        await self._returning.step(failures)

    async def _converse(self, session: Session, number: int) -> None:
        self._reporter.attach(session, number)
        try:
            self._renewal.begin()
            await session.subscribe([*self.inbox.subscriptions(self.settings.device.id), self._renewal.subscription])
            await self._reporter.presence(online=True)
            await self._self_report.send()
            self.runner.set_connected(connected=True)
            self._source.attach(session)
            log.info("connected", session=number)
            async for message in session.messages():
                self._pulse.note()
                if not self._renewal.receive(message):
                    self.inbox.receive(message)
        finally:
            self._source.detach()
            self._reporter.detach()
            self.runner.set_connected(connected=False)
            if self._handlers:
                self._handlers.connection_lost()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S if self.runner.update else IDLE_S)
            await self.runner.tick()
            self._sources.watch()
            self._clock_doubt.look()

    async def _answer(self) -> None:
        # Apart from the tick: a gate may take its time, and a deadline may not wait for it.
        while True:
            await self._pulse.rest(busy=self.runner.update is not None or self._answers.is_open)
            if self._reporter.is_connected:
                await self._answers.answer()
                await self._self_report.send_news()
                await self._self_report.send_sign_of_life()
                await self._renewal.tick()
            await self._upkeep.tick()

    def _leave_broker(self, why: str) -> bool:
        return self._uplink.leave(why)

    def _say_again(self) -> None:
        self.runner.repeat_level()
        self._answers.repeat_all()
        self._self_report.say_again()

    def _receiver(self) -> Receiver:
        me, running = self.settings.device, self._installer.running()
        runs = {me.component: running.version} if running else {}
        return Receiver(self._enrolment.fleet, me.id, me.product, me.hardware, runs)

    def _chunk_refused(self, code: ErrorCode, detail: str) -> None:
        update = self.runner.update
        self._refusals.add(update.offer.rollout if update else "", ProtocolError(code, detail))
