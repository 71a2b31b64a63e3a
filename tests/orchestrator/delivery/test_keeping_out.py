"""A revoked device and the real broker: its session ends, it stays out, and nobody else is bothered."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiomqtt import Will
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from orchestrator.config import Home, Settings
from orchestrator.config_brokers import BrokerSettings
from orchestrator.delivery.broker import ManagedBroker
from orchestrator.delivery.broker_access import service_connection
from orchestrator.delivery.crl_probe import Answer, ask
from orchestrator.delivery.keeping_out import KeepingOut
from orchestrator.delivery.revocation_lists import NAMED
from orchestrator.errors import OperationError
from orchestrator.fleet import closing
from orchestrator.fleet.authority import (
    BACKDATED,
    Authority,
    create_authority,
    issue_client,
    issue_server,
    load_authority,
)
from orchestrator.fleet.crls import CRL_ALARM, CRL_LIFE, CRL_RENEWAL, Probe, read_crl, sign_crl, write_crl
from orchestrator.model.device import Device
from orchestrator.storage import certificates, devices, events
from orchestrator.storage.database import Database
from protocol.clock import ManualClock
from protocol.mqtt.connection import ConnectionLost, ConnectionSettings, Session, connect
from protocol.topics import DELIVERY, INGEST, Kind, Topics
from tests.certificates import free_ports
from tests.orchestrator.delivery.lab import DEADLINE_S, until

TOPICS = Topics("fleet")
OTHER = "gw-2"
REFUSED, LET_IN = Answer.IN_FORCE, Answer.NOT_YET
BEHIND = timedelta(days=5)
"""Of the tests' clock: a list from the future is not valid yet, so it can only be moved up to the present."""
CONNECT = b"\x10\x10\x00\x04MQTT\x04\x00\x00\x1e\x00\x04gw-1"
"""MQTT 3.1.1, without a clean session."""


@dataclass
class Door:
    """A home with real CAs, a database, a broker and what keeps devices out of it."""

    home: Home
    settings: Settings
    db: Database
    clock: ManualClock
    authority: Authority
    broker: ManagedBroker
    running: "asyncio.Task[None] | None" = None
    reloads: list[bool] = field(default_factory=list)
    signer_knows: list[str] = field(default_factory=list)
    contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)

    def keeper(self) -> KeepingOut:
        """Keeps devices out of this broker; run it with ``kept``."""
        return KeepingOut(self.db, self.home, self.settings, self.clock, self._reload, self._tell_signer)

    def _tell_signer(self, names: Sequence[str], why: str) -> None:
        self.signer_knows += names

    def _reload(self) -> bool:
        self.reloads.append(self.broker.reload())
        return self.reloads[-1]

    async def start_broker(self) -> None:
        """Start it and wait until it answers."""
        self.running = asyncio.create_task(self.broker.run())
        await self.broker.ready(DEADLINE_S)

    async def stop_broker(self) -> None:
        """Stop it and wait until it is gone."""
        if self.running is not None:
            self.running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.running

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[KeepingOut]:
        """A keeper that runs for the length of the block."""
        keeper = self.keeper()
        await keeper.prepare()
        task = asyncio.create_task(keeper.run())
        try:
            yield keeper
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def enrol(self, name: str) -> None:
        """A device with a certificate of the fleet's CA."""
        issue_client(self.authority, self.home.tls, name)
        now = self.clock.now()
        device = Device(id=name, product="gateway", hardware="hw", enrolled_at=now)
        async with self.db.begin() as conn:
            await devices.insert(conn, device, report_key={}, content_key="")
            await certificates.add(conn, name, f"{self.serial(name):x}")

    def serial(self, name: str) -> int:
        """Of a device's certificate."""
        return x509.load_pem_x509_certificate((self.home.tls / f"{name}.pem").read_bytes()).serial_number

    def as_device(self, name: str, **changes: object) -> ConnectionSettings:
        """How a device connects."""
        settings = ConnectionSettings(
            host="127.0.0.1",
            port=self.settings.broker.device_port,
            client_id="whatever",
            ca=self.home.devices_ca,
            certificate=self.home.tls / f"{name}.pem",
            key=self.home.tls / f"{name}.key",
            timeout_s=2.0,
        )
        return replace(settings, **changes)  # type: ignore[arg-type]

    async def tries(self, name: str) -> Answer:
        """What the broker does with a device's certificate now."""
        pem = (self.home.tls / f"{name}.pem").read_bytes() + (self.home.tls / f"{name}.key").read_bytes()
        return await ask("127.0.0.1", self.settings.broker.device_port, self.home.devices_ca, Probe(0, pem))

    async def happened(self) -> list[str]:
        """Kinds of all events."""
        async with self.db.read() as conn:
            return [event["kind"] for event in await events.page(conn)]


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Everything but a running broker."""
    home = Home(tmp_path)
    authority, services = create_authority(home.ca, "devices-ca"), create_authority(home.ca, "services-ca")
    issue_server(authority, home.tls, "broker", ["127.0.0.1"])
    for name in (DELIVERY, INGEST):
        issue_client(services, home.tls, name)
    device_port, service_port = free_ports()
    settings = Settings(fleet="fleet", broker=BrokerSettings(device_port=device_port, service_port=service_port))
    db = await Database.open(home.database)
    found = Door(home, settings, db, ManualClock(datetime.now(UTC) - BEHIND), authority, ManagedBroker(home, settings))
    try:
        yield found
    finally:
        await found.stop_broker()
        await db.close()


async def ended(session: Session, seconds: float = 2.0) -> bool:
    """Whether a session ends within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await session.wait_lost()
    except ConnectionLost:
        return True
    except TimeoutError:
        pass
    return False


def held(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    """A condition for ``until``."""

    async def ask() -> bool:
        return condition()

    return ask


async def test_the_open_session_ends_and_does_not_come_back(door: Door) -> None:
    """N5: the live session is ended, its will goes out, TLS refuses the certificate; another device notices nothing."""
    for name in ("gw-1", OTHER):
        await door.enrol(name)
    async with door.kept() as keeper:
        await door.start_broker()
        will = Will(TOPICS.build(Kind.PRESENCE, device="gw-1"), b"gone", qos=1)
        ingest = service_connection(door.home, door.settings, INGEST)
        async with (
            connect(ingest) as listener,
            connect(door.as_device("gw-1", will=will)) as session,
            connect(door.as_device(OTHER)) as other,
        ):
            await listener.subscribe([(TOPICS.filter(Kind.PRESENCE), 1)])
            await closing.revoke(door.db, door.clock, "gw-1", "stolen")
            assert await keeper.pending("gw-1", DEADLINE_S) is None
            assert await ended(session)
            async with asyncio.timeout(DEADLINE_S):
                async for message in listener.messages():
                    assert (message.topic, message.payload) == (will.topic, b"gone")
                    break
            assert await door.tries("gw-1") is REFUSED
            await other.subscribe([(TOPICS.filter(Kind.ANNOUNCE), 1)])  # its connection is as it was
        assert await door.tries(OTHER) is LET_IN
    async with door.db.read() as conn:
        found = await devices.get(conn, "gw-1")
    assert found is not None and found.session_ended_at == door.clock.now()
    assert await door.happened() == ["device_revoked", "device_kept_out"]
    assert door.signer_knows == ["gw-1"]


def dial(door: Door, who: str, port: int, ticket: ssl.SSLSession | None = None) -> tuple[bytes, ssl.SSLSession]:
    """A client of the attacker's own make, as gw-1 and with a session that is kept: (CONNACK, TLS session)."""
    context = door.contexts.setdefault(who, ssl.create_default_context(cafile=str(door.home.devices_ca)))
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # says within the handshake whether it is refused
    context.load_cert_chain(door.home.tls / f"{who}.pem", door.home.tls / f"{who}.key")
    with (
        socket.create_connection(("127.0.0.1", port), timeout=3) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1", session=ticket) as wrapped,
    ):
        wrapped.sendall(CONNECT)
        answer = wrapped.recv(4)
        assert (ticket is not None) == bool(wrapped.session_reused)
        assert wrapped.session is not None
        return answer, wrapped.session


async def test_the_list_is_in_force_before_the_session_ends(door: Door) -> None:
    """A broker that has not loaded the list keeps the session: ended now, it would only come back."""
    await door.enrol("gw-1")
    async with door.kept() as keeper:
        await door.start_broker()
        async with connect(door.as_device("gw-1")) as session:
            with pytest.MonkeyPatch.context() as deaf:
                deaf.setattr(door.broker, "reload", lambda: True)
                await closing.revoke(door.db, door.clock, "gw-1", "stolen")
                assert await keeper.pending("gw-1", 0.1) is not None
                await until(held(lambda: "not in force" in keeper.why), "it says what is pending")
                assert not await ended(session, 0.2)
            assert await keeper.pending("gw-1", DEADLINE_S) is None
            assert await ended(session)


async def test_copies_of_session_state_open_nothing(door: Door) -> None:
    """A TLS ticket and an MQTT session from before: the ticket is not taken, the session is forgotten."""
    await door.enrol("gw-1")
    device_port, service_port = door.settings.broker.device_port, door.settings.broker.service_port
    async with door.kept() as keeper:
        await door.start_broker()
        _, ticket = await asyncio.to_thread(dial, door, "gw-1", device_port)
        answer, ticket = await asyncio.to_thread(dial, door, "gw-1", device_port, ticket)
        assert answer == b"\x20\x02\x01\x00"  # session present: both copies are good so far
        await closing.revoke(door.db, door.clock, "gw-1", "stolen")
        assert await keeper.pending("gw-1", DEADLINE_S) is None
        for state in (ticket, None):
            with pytest.raises(ssl.SSLError, match=r"(?i)certificate.revoked"):
                await asyncio.to_thread(dial, door, "gw-1", device_port, state)
        answer, _ = await asyncio.to_thread(dial, door, DELIVERY, service_port)
        assert answer == b"\x20\x02\x00\x00"  # nothing is kept for this client id


async def test_a_device_that_reconnects_without_pause_stays_out(door: Door) -> None:
    """From the moment that the answer says so, no connection of it is let in."""
    await door.enrol("gw-1")
    let_in = 0

    async def storm() -> None:
        nonlocal let_in
        while True:
            with contextlib.suppress(ConnectionLost):
                async with connect(door.as_device("gw-1", timeout_s=0.5)) as session:
                    let_in += 1
                    await session.wait_lost()

    async with door.kept() as keeper:
        await door.start_broker()
        storms = asyncio.create_task(storm())
        try:
            await until(held(lambda: let_in > 0), "it is connected")
            await closing.revoke(door.db, door.clock, "gw-1", "stolen")
            assert await keeper.pending("gw-1", DEADLINE_S) is None
            at_the_answer = let_in
            assert await door.tries("gw-1") is REFUSED
            assert let_in == at_the_answer
        finally:
            storms.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await storms


async def test_a_broker_that_is_down_is_made_right_when_it_returns(door: Door) -> None:
    """The answer says what is pending; once the broker runs, the list is in force and the device marked as kept out."""
    await door.enrol("gw-1")
    async with door.kept() as keeper:
        await closing.revoke(door.db, door.clock, "gw-1", "stolen")
        pending = await keeper.pending("gw-1", 0.3)
        assert pending is not None and "no answer" in pending
        await door.start_broker()
        assert await keeper.pending("gw-1", DEADLINE_S) is None
        assert await door.tries("gw-1") is REFUSED
        assert door.serial("gw-1") in read_crl(door.home.devices_crl).revoked
    assert await door.happened() == ["device_revoked", "device_kept_out"]


async def test_a_list_that_ran_out_locks_the_fleet_out_until_it_is_renewed(door: Door) -> None:
    """mosquitto refuses everybody then; lists are renewed before it starts, so a week without a serve does no harm."""
    await door.enrol("gw-1")
    long_ago = datetime.now(UTC) - CRL_LIFE - timedelta(hours=1)
    services = load_authority(door.home.ca, "services-ca")
    write_crl(door.home.devices_crl, door.authority, {}, long_ago)
    write_crl(door.home.services_crl, services, {}, datetime.now(UTC))
    await door.start_broker()
    assert await door.tries("gw-1") is Answer.EXPIRED
    await door.stop_broker()
    door.clock.advance(BEHIND.total_seconds())
    async with door.kept():
        door.running = asyncio.create_task(door.broker.run())
        await door.broker.ready(DEADLINE_S)
        assert await door.tries("gw-1") is LET_IN


async def test_lists_are_renewed_daily_under_a_running_broker(door: Door) -> None:
    """The broker that runs loads the new lists of both CAs; sessions stay."""
    await door.enrol("gw-1")
    async with door.kept() as keeper:
        await door.start_broker()
        async with connect(door.as_device("gw-1")) as session:
            before = [read_crl(path) for path in (door.home.devices_crl, door.home.services_crl)]
            door.clock.advance((CRL_RENEWAL - BACKDATED).total_seconds() - 60)
            await keeper.look()
            assert read_crl(door.home.devices_crl) == before[0]
            door.clock.advance(61)
            await keeper.look()  # returns only when the broker has shown that it has them
            after = [read_crl(path) for path in (door.home.devices_crl, door.home.services_crl)]
            for new, old in zip(after, before, strict=True):
                assert new.number == old.number + 1
                assert new.expires - old.expires == CRL_RENEWAL - BACKDATED + timedelta(seconds=1)
            await session.subscribe([(TOPICS.filter(Kind.ANNOUNCE), 1)])
        assert True in door.reloads


async def test_a_list_that_cannot_be_renewed_is_an_alarm_at_half_its_life(door: Door) -> None:
    """Once per list, as an event that names the hours left; and a start with a list that ran out is refused."""
    keeper = door.keeper()
    await keeper.prepare()
    door.home.devices_crl.with_name(".devices-ca.crl.new").mkdir()  # in the way of writing
    door.clock.advance((CRL_LIFE - CRL_ALARM).total_seconds() - 60)
    with pytest.raises(OperationError, match="cannot be written"):
        await keeper.look()
    assert await door.happened() == []
    door.clock.advance(120)
    for _ in range(2):
        with pytest.raises(OperationError, match="cannot be written"):
            await keeper.look()
    assert await door.happened() == ["crl_not_renewed"]
    assert read_crl(door.home.services_crl).issued > read_crl(door.home.devices_crl).issued  # one keeps no other back
    await door.keeper().prepare()  # still good: a broker may start with it
    door.clock.advance(CRL_ALARM.total_seconds())
    with pytest.raises(OperationError, match="has run out"):
        await door.keeper().prepare()


async def test_a_database_from_before_the_revocation_lets_nobody_in(door: Door) -> None:
    """Restored from a backup it says enrolled; the list says otherwise, and the device is revoked again."""
    await door.enrol("gw-1")
    await door.keeper().prepare()
    write_crl(door.home.devices_crl, door.authority, {door.serial("gw-1"): door.clock.now()}, door.clock.now())
    await door.keeper().prepare()
    async with door.db.read() as conn:
        found = await devices.get(conn, "gw-1")
    assert found is not None
    assert (found.state, found.closed_reason) == ("revoked", NAMED)
    assert door.serial("gw-1") in read_crl(door.home.devices_crl).revoked


async def test_a_ca_whose_key_is_elsewhere_is_told_what_to_revoke(door: Door) -> None:
    """Its list is taken as it is; a revoke stays pending, with the serial, until the list that is there names it."""
    await door.enrol("gw-1")
    (door.home.ca / "devices-ca.key").unlink()
    write_crl(door.home.devices_crl, door.authority, {}, door.clock.now())
    keeper = door.keeper()
    await keeper.prepare()
    await closing.revoke(door.db, door.clock, "gw-1", "stolen")
    with pytest.raises(OperationError, match=f"{door.serial('gw-1'):x}"):
        await keeper.look()


async def test_a_broker_of_ones_own_gets_the_file_named(door: Door) -> None:
    """Nothing here can reload it: what is pending names the file to copy, and it is done once the broker has it."""
    await door.enrol("gw-1")
    own = door.settings.broker.model_copy(update={"managed": False})
    settings = door.settings.model_copy(update={"broker": own})
    keeper = KeepingOut(door.db, door.home, settings, door.clock, lambda: False, door._tell_signer)
    await keeper.prepare()
    await door.start_broker()
    await keeper.look()
    await closing.revoke(door.db, door.clock, "gw-1", "stolen")
    with pytest.raises(OperationError, match=r"copy .*devices-ca\.crl to the broker"):
        await keeper.look()
    assert await door.tries("gw-1") is LET_IN
    assert door.broker.reload()  # the person has done it
    await keeper.look()
    assert await door.tries("gw-1") is REFUSED


async def test_while_a_fleet_moves_to_another_ca_devices_of_both_get_in(door: Door) -> None:
    """mosquitto refuses a CA's clients without its list: the former CA's key signs one, wherever it lies beside."""
    for name in ("gw-1", OTHER):
        await door.enrol(name)
    old = [door.home.ca / f"devices-ca.{end}" for end in ("pem", "key")]
    former = old[0].read_text()
    old[1].rename(door.home.ca / "former.key")
    old[0].unlink()
    door.authority = create_authority(door.home.ca, "devices-ca")
    old[0].write_text(old[0].read_text() + former)
    await door.enrol("gw-3")
    async with door.kept() as keeper:
        await door.start_broker()
        assert [await door.tries(name) for name in ("gw-1", "gw-3")] == [LET_IN, LET_IN]
        for name in ("gw-1", "gw-3"):
            await closing.revoke(door.db, door.clock, name, "stolen")
            assert await keeper.pending(name, DEADLINE_S) is None
            assert await door.tries(name) is REFUSED
        assert await door.tries(OTHER) is LET_IN
    assert "crl_missing" not in await door.happened()


async def test_a_ca_without_a_list_is_told(door: Door) -> None:
    """Its clients are refused: the operator must hear of it before they do."""
    other = create_authority(door.home.path / "elsewhere", "outside-ca")
    with door.home.devices_ca.open("ab") as bundle:
        bundle.write(other.certificate.public_bytes(Encoding.PEM))
    await door.keeper().prepare()
    assert await door.happened() == ["crl_missing"]
    with door.home.devices_crl.open("ab") as lists:
        lists.write(sign_crl(other, {}, 1, door.clock.now()))
    for _ in range(2):  # it stays where it was put
        await door.keeper().prepare()
    assert await door.happened() == ["crl_missing"]
