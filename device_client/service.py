"""One agent: builds every room, keeps the connection, runs it all in one TaskGroup. Several may share a process."""

import asyncio
import secrets
from collections.abc import Awaitable
from datetime import datetime, timedelta
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import structlog
from aiomqtt import Will

from device_client import identity, local_socket
from device_client.agent.journal import Journal
from device_client.agent.runner import Runner
from device_client.approval import ApprovalBook, Decision
from device_client.availability import Availability
from device_client.config import DeviceHome, DeviceSettings
from device_client.download.sources import MqttSource
from device_client.effect_handlers import EffectHandlers
from device_client.errors import ConflictError, NotFoundError, UsageError
from device_client.floors_file import FloorsFile
from device_client.gate_keeper import GateKeeper
from device_client.gates.approval import ApprovalGate
from device_client.gates.disk import DiskGate
from device_client.gates.in_use import InUseGate
from device_client.gates.interval import IntervalGate
from device_client.gates.power import PowerGate
from device_client.gates.way_back import WayBackGate
from device_client.inbox import Inbox
from device_client.installers import make_installer
from device_client.reporter import Reporter, will
from device_client.transfer import Fetcher
from device_client.verification.release import Verifier
from protocol.clock import Clock
from protocol.directives import Action, Announcement, Grant, Offer
from protocol.envelopes import encode
from protocol.errors import ErrorCode, ProtocolError
from protocol.mqtt.connection import ConnectionLost, ConnectionSettings, RequestRefused, Session, backoff, connect
from protocol.reports import Reason
from protocol.states import Phase
from protocol.topics import Topics
from protocol.trust.checks import Receiver
from protocol.trust.floors import Floors
from protocol.trust.workflow import TrustStore

log = structlog.get_logger(__name__)

TICK_S = 0.25
MAX_APPROVAL_DEFERRAL = timedelta(days=30)


class _FloorsStore:
    """Floors on disk; an absent file is a new device, a damaged one is an error (fail closed)."""

    def __init__(self, directory: Path) -> None:
        self._file = FloorsFile(directory, Floors)

    def load(self) -> Floors:
        return self._file.load() or Floors()

    def save(self, floors: Floors) -> None:
        self._file.save(floors)


class Agent:
    """One device's agent."""

    def __init__(self, home: DeviceHome, settings: DeviceSettings, clock: Clock) -> None:
        self.home = home
        self.settings = settings
        self._clock = clock
        self._random: Random = SystemRandom()
        me = settings.device
        self._enrolment = identity.load_enrolment(home, settings)
        self._topics = Topics(self._enrolment.fleet)
        self._installer = make_installer(home, settings)
        self._verifier = Verifier(
            TrustStore(home.trust, identity.load_root(home)), _FloorsStore(home.state), self._receiver, clock
        )
        timing = settings.timing
        self.runner = Runner(Journal(home.journal), timing, clock, self._random)
        self._reporter = Reporter(self._topics, me.id, identity.load_report_signer(home), clock)
        self._source = MqttSource(self._topics)
        self._book = ApprovalBook(home.state / "approvals.json", home.approvals)
        gates = [
            PowerGate(settings.gates.power_supply_root),
            DiskGate(home.path, settings.gates.disk_reserve_bytes),
            InUseGate(home.inhibitors, clock),
            ApprovalGate(self._book, clock),
            WayBackGate(self._installer.way_back),
            IntervalGate(self._installer.last_update, clock),
        ]
        self._keeper = GateKeeper(gates, settings, self._verifier, self.runner.announcements)
        self._availability = Availability(timing.readiness_retry_s, timing.readiness_level_s, self._random)
        self.inbox = Inbox(self._topics, self._verifier, self._source, self.runner.post, self._say_again)
        self._fetcher = Fetcher(
            home.staging,
            settings,
            me.id,
            identity.load_content_key(home),
            self._verifier,
            self._source,
            self._reporter,
            self._chunk_refused,
            self._random,
        )
        self._handlers: EffectHandlers | None = None
        self._connected = False

    async def run(self) -> None:
        """Run until cancelled."""
        structlog.contextvars.bind_contextvars(device_id=self.settings.device.id)
        try:
            await asyncio.to_thread(self._verifier.refresh, {})
        except ProtocolError as error:
            log.info("no trust stored yet", code=error.code.value)
        async with asyncio.TaskGroup() as group:
            self._handlers = EffectHandlers(
                self.home,
                self.settings,
                self.runner,
                self._verifier,
                self._installer,
                self._keeper,
                self._fetcher,
                self._reporter,
                self._send_inventory,
                group,
            )
            self.runner.attach(self._handlers)
            group.create_task(local_socket.serve(self.home.socket, self._answer))
            group.create_task(self.runner.run())
            group.create_task(self.inbox.run())
            group.create_task(self._keep_connected())
            group.create_task(self._tick())

    async def _keep_connected(self) -> None:
        attempt = 0
        timing = self.settings.timing
        while True:
            for address in self._enrolment.brokers:
                number = await asyncio.to_thread(identity.next_session, self.home)
                try:
                    async with connect(self._connection(address.host, address.port, number)) as session:
                        attempt = 0
                        await self._converse(session, number)
                except (ConnectionLost, RequestRefused) as error:
                    log.info("connection lost", why=str(error))
                await asyncio.sleep(
                    backoff(attempt, self._random, timing.connect_backoff_s, timing.connect_backoff_cap_s)
                )
                attempt += 1

    async def _converse(self, session: Session, number: int) -> None:
        device = self.settings.device.id
        self._reporter.attach(session, number)
        self._connected = True
        try:
            await session.subscribe(self.inbox.subscriptions(device))
            await self._reporter.presence(online=True)
            await self._send_inventory()
            self.runner.set_connected(connected=True)
            self._source.attach(session)
            log.info("connected", session=number)
            async for message in session.messages():
                self.inbox.receive(message)
        finally:
            self._connected = False
            self._source.detach()
            self._reporter.detach()
            self.runner.set_connected(connected=False)
            if self._handlers:
                self._handlers.connection_lost()

    def _connection(self, host: str, port: int, number: int) -> ConnectionSettings:
        topic, farewell = will(self.settings.device.id, self._topics, number)
        broker = self.settings.broker
        return ConnectionSettings(
            host=host,
            port=port,
            client_id=self.settings.device.id,
            ca=self.home.identity / "ca.pem",
            certificate=self.home.identity / "certificate.pem",
            key=self.home.identity / "device.key",
            will=Will(topic, encode(farewell), qos=1),
            keepalive_s=broker.keepalive_s,
            timeout_s=broker.timeout_s,
            mqtt5=broker.protocol == "5",
        )

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            await self.runner.tick()
            await self._answer_announcements()
            if self._verifier.stale:
                self.inbox.judge_again()

    async def _answer_announcements(self) -> None:
        if not self._connected:
            return
        for announcement in list(self.runner.announcements.values()):
            offer = self.runner.offers.get(announcement.rollout)
            update = self.runner.update
            open_here = update is not None and update.offer.rollout == announcement.rollout
            if open_here or (offer and offer.grant is Grant.CLOSED) or not self._is_live(announcement):
                self._availability.forget(announcement.rollout)
                continue
            reasons, fits = await self._judge_announced(announcement)
            if fits:
                await self._say(announcement, reasons)

    async def _judge_announced(self, announcement: Announcement) -> tuple[list[Reason], bool]:
        reasons: list[Reason] = []
        try:
            judgement = await self._keeper.judge(announcement.rollout, announcement.release, Phase.DOWNLOAD)
            reasons.extend(judgement.reasons)
        except ProtocolError as error:
            if error.code is ErrorCode.HARDWARE:
                return [], False  # for other devices
            reasons.append(Reason(gate="trust", code=error.code.value.lower(), detail=error.detail[:500]))
        if self.runner.update is not None and not self.runner.update.is_over:
            other = self.runner.update.offer.rollout
            reasons.append(Reason(gate="busy", code="busy", detail=f"rollout {other} is under way here"))
        for about in (announcement.rollout, ""):
            refused = self.inbox.refusals.newest.get(about)
            if refused:
                code, detail = refused
                reasons.append(Reason(gate="refused", code=code.value.lower(), detail=detail[:500]))
        return reasons, True

    async def _say(self, announcement: Announcement, reasons: list[Reason]) -> None:
        ready = all(reason.gate == "refused" for reason in reasons)
        nonce = self._availability.due(
            announcement, reasons, ready=ready, nonce=secrets.token_urlsafe(12), now=self._clock.monotonic()
        )
        if nonce:
            await self._reporter.readiness(
                announcement.rollout, 0, nonce, Phase.DOWNLOAD, reasons, ready=ready, stale=self._verifier.stale
            )

    def _is_live(self, announcement: Announcement) -> bool:
        return announcement.action is Action.INSTALL and announcement.expires > self._verifier.now()

    def _say_again(self) -> None:
        self.runner.repeat_level()
        self._availability.repeat_all(self._clock.monotonic())

    async def _send_inventory(self) -> None:
        me = self.settings.device
        running = await asyncio.to_thread(self._installer.running)
        components = {me.component: running.version} if running else {}
        await self._reporter.inventory(
            product=me.product,
            hardware=me.hardware,
            components=components,
            labels=dict(me.labels),
            kind=self.settings.installer.kind,
        )

    def _receiver(self) -> Receiver:
        me = self.settings.device
        running = self._installer.running()
        components = {me.component: running.version} if running else {}
        return Receiver(self._enrolment.fleet, me.id, me.product, me.hardware, components)

    def _chunk_refused(self, code: ErrorCode, detail: str) -> None:
        update = self.runner.update
        self.inbox.refusals.add(update.offer.rollout if update else "", ProtocolError(code, detail))

    async def _answer(self, verb: str, arguments: dict[str, Any], who: str) -> dict[str, Any]:
        """The local socket's verbs."""
        match verb:
            case "status":
                return await self._status()
            case "approve" | "decline" | "defer":
                return await self._decide(verb, arguments, who)
            case _:
                raise UsageError(f"verb {verb[:40]!r}: expected status, approve, defer or decline")

    async def _decide(self, verb: str, arguments: dict[str, Any], who: str) -> dict[str, Any]:
        update = self.runner.update
        rollout = str(arguments.get("rollout") or (update.offer.rollout if update else ""))
        known: Offer | Announcement | None = self.runner.offers.get(rollout) or self.runner.announcements.get(rollout)
        if known is None:
            raise NotFoundError(f"rollout {rollout[:64]!r}: none of this name is open here; see 'status'")
        if update and update.offer.rollout == rollout and update.is_over:
            raise ConflictError(f"rollout {rollout}: it is over here ({update.state}); nothing to {verb}")
        now = self._clock.now()
        decision = Decision(
            rollout=rollout,
            release_sha256=known.release.sha256,
            answer=verb,
            who=who,
            at=now,
            until=_until(arguments, now) if verb == "defer" else None,
        )
        await asyncio.to_thread(self._book.record, decision)
        log.info("decision recorded", rollout_id=rollout, answer=verb, who=who)
        return {"rollout": rollout, "answer": verb, "who": who}

    async def _status(self) -> dict[str, Any]:
        running = await asyncio.to_thread(self._installer.running)
        update = self.runner.update
        last = self._fetcher.last
        return {
            "device": self.settings.device.id,
            "connected": self._connected,
            "stale": self._verifier.stale,
            "running": {self.settings.device.component: running.version} if running else {},
            "update": update.model_dump(mode="json", exclude={"offer": {"key_wrap"}}) if update else None,
            "transfer": {"present_bytes": last.present_bytes, "total_bytes": last.total_bytes} if last else None,
            "announcements": {r: a.action.value for r, a in self.runner.announcements.items()},
            "refused": dict(self.inbox.refusals.counts),
            "floors": self._verifier.floors.counters,
        }


def _until(arguments: dict[str, Any], now: datetime) -> datetime:
    try:
        seconds = float(arguments.get("seconds", 3600))
    except (TypeError, ValueError) as error:
        raise UsageError("defer: expected a number of seconds") from error
    if not 0 < seconds <= MAX_APPROVAL_DEFERRAL.total_seconds():
        raise UsageError(f"defer: expected up to {MAX_APPROVAL_DEFERRAL.days} days")
    return now + timedelta(seconds=seconds)


async def run_agents(agents: list[Agent]) -> None:
    """Run several agents in this process until cancelled; one that ends by itself ends them all."""
    async with asyncio.TaskGroup() as group:
        for agent in agents:
            group.create_task(_isolated(agent.run()))


async def _isolated(work: Awaitable[None]) -> None:
    """Each agent in a task, and so a logging context, of its own."""
    await work
