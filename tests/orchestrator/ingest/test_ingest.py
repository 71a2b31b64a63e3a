"""Ingest: what is right is stored, what is wrong is counted, and nothing that a device sends ends it."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from orchestrator.config import Home
from orchestrator.ingest.ingest import LEVEL_EVERY_S, Ingest
from orchestrator.model.rollout import RolloutState
from orchestrator.storage import assignments, devices, published, rollouts
from protocol.clock import SystemClock
from protocol.envelopes import sign
from protocol.mqtt.connection import ConnectionSettings, Message, connect
from protocol.reports import READINESS_TYPE, Presence, Progress, Readiness, Want
from protocol.states import State
from protocol.topics import RULES, Kind
from tests.orchestrator.databases import open_new
from tests.orchestrator.delivery.lab import Lab, until
from tests.orchestrator.delivery.rows import SPEC
from tests.orchestrator.ingest.conftest import Desk
from tests.orchestrator.ingest.speakers import FLEET, NOW, TOPICS, Speaker, admit, hint, message, row


async def test_a_report_is_stored_and_wakes_who_must_act(desk: Desk) -> None:
    """Readiness of a member moves its row and wakes the engine; an outcome is heard, so delivery is woken too."""
    one = Speaker("dev1")
    await admit(desk.db, one)
    await desk.ingest.take([one.ready(1, 1)])
    assert (await row(desk.db, "dev1")).ready
    assert (desk.controller, desk.delivery, desk.ingest.taken) == (1, 0, 1)
    two = Speaker("dev2")
    async with desk.db.begin() as conn:
        await conn.execute(text("DELETE FROM assignments"))
    await admit(desk.db, two, offered=True)
    await desk.ingest.take([two.state(1, 1, State.FAILED)])
    assert (await row(desk.db, "dev2")).state == State.FAILED
    assert (desk.controller, desk.delivery) == (2, 1)
    assert not desk.ingest.rejects.counts


def _resigned(speaker: Speaker, other: Speaker) -> Message:
    envelope = json.loads(speaker.ready(1, 5).payload)
    forged = json.loads(Speaker("dev1", other.signer).ready(1, 5).payload)
    envelope["signatures"][0]["sig"] = forged["signatures"][0]["sig"]
    return message(Kind.READINESS, "dev1", json.dumps(envelope).encode())


def _oversize(speaker: Speaker) -> Message:
    return message(Kind.READINESS, speaker.device, b"x" * (RULES[Kind.READINESS].max_bytes + 1))


def _wrong_type(speaker: Speaker) -> Message:
    return message(Kind.STATE, speaker.device, speaker.ready(1, 5).payload)


def _other_fleet(speaker: Speaker) -> Message:
    return speaker.ready(1, 5, fleet="elsewhere")


def _other_device(speaker: Speaker) -> Message:
    return message(Kind.READINESS, "dev1", sign(
        Speaker("dev2").payload(Readiness, 1, 5, rollout="r-1", nonce="n" * 8, phase="download", ready=True),
        READINESS_TYPE, speaker.signer,
    ))  # fmt: skip


def _version_2(speaker: Speaker) -> Message:
    values = {"rollout": "r-1", "nonce": "n" * 8, "phase": "download", "ready": True}
    fields = json.loads(speaker.payload(Readiness, 2, 5, **values)) | {"v": "2.0"}
    return message(Kind.READINESS, "dev1", sign(json.dumps(fields).encode(), READINESS_TYPE, speaker.signer))


WRONG: dict[str, tuple[str, Any]] = {
    "no envelope": ("E_FORMAT", lambda one, _: message(Kind.STATE, "dev1", b"{}")),
    "no JSON": ("E_FORMAT", lambda one, _: message(Kind.STATE, "dev1", b"\xff\xfe")),
    "nested too deeply": ("E_FORMAT", lambda one, _: message(Kind.STATE, "dev1", b"[" * 30_000)),
    "oversize": ("E_OVERSIZE", lambda one, _: _oversize(one)),
    "another kind of report": ("E_TYPE", lambda one, _: _wrong_type(one)),
    "signed by another device": ("E_SIGNATURE", lambda one, other: Speaker("dev1", other.signer).ready(1, 5)),
    "another device's signature bytes": ("E_SIGNATURE", _resigned),
    "of another device, by this one's key": ("E_SCOPE", lambda one, _: _other_device(one)),
    "of another fleet": ("E_SCOPE", lambda one, _: _other_fleet(one)),
    "of a version to come": ("E_FORMAT", lambda one, _: _version_2(one)),
    "of a device that is not enrolled": ("E_SCOPE", lambda one, _: Speaker("stranger").ready(1, 5)),
    "hint of a device that is not enrolled": (
        "E_SCOPE", lambda one, _: hint(Kind.PRESENCE, "stranger", Presence(session=1, online=True)),
    ),
    "a hint without its fields": ("E_FORMAT", lambda one, _: message(Kind.PROGRESS, "dev1", b'{"percent":1}')),
    "a topic that goes down": ("E_SCOPE", lambda one, _: Message(TOPICS.build(Kind.TRUST_BUNDLE), b"", False, 1)),
    "another root": ("E_SCOPE", lambda one, _: Message("ota/v1/elsewhere/up/dev1/state", b"{}", False, 1)),
    "no topic of ours": ("E_SCOPE", lambda one, _: Message("up/+/#", b"{}", False, 1)),
    "the same again": ("E_REPLAY", lambda one, _: one.ready(2, 4)),
    "a session that went back": ("E_REPLAY", lambda one, _: one.ready(1, 9)),
    "of a rollout that it has no part in": ("no_assignment", lambda one, _: one.state(2, 5, State.FAILED, rollout="x")),
}  # fmt: skip


@pytest.mark.parametrize(("reason", "make"), WRONG.values(), ids=WRONG.keys())
async def test_what_is_wrong_is_counted_by_reason_and_moves_nothing(desk: Desk, reason: str, make: Any) -> None:
    """Between two good reports: both are taken, the bad one changes no row."""
    one, other = Speaker("dev1"), Speaker("dev2")
    await admit(desk.db, one, other)
    await desk.ingest.take([one.ready(2, 4)])
    before = await row(desk.db, "dev1")
    await desk.ingest.take([make(one, other), other.ready(1, 1)])
    assert desk.ingest.rejects.counts == {reason: 1}
    told = desk.ingest.rejects.of("dev1")
    assert told is None or (told.reason, told.count) == (reason, 1)
    topic = make(one, other).topic
    assert (told is not None) is ("/up/dev1/" in topic and "elsewhere" not in topic)
    assert desk.ingest.rejects.of("dev2") is None
    assert await row(desk.db, "dev1") == before
    assert (await row(desk.db, "dev2")).ready


async def test_a_revoked_device_is_heard_no_more(desk: Desk) -> None:
    """Also when its key was known from before."""
    one = Speaker("dev1")
    await admit(desk.db, one)
    await desk.ingest.take([one.ready(1, 1, ready=False)])
    async with desk.db.begin() as conn:
        await conn.execute(text("UPDATE devices SET state = 'revoked'"))
    await desk.ingest.take([one.ready(1, 2)])
    assert desk.ingest.rejects.counts == {"not_enrolled": 1}
    assert not (await row(desk.db, "dev1")).ready


async def test_hints_are_taken_for_what_they_are(desk: Desk) -> None:
    """Progress moves a percentage, wants reach delivery, presence shows; no hint needs an order."""
    one = Speaker("dev1")
    await admit(desk.db, one, offered=True)
    async with desk.db.begin() as conn:
        await rollouts.insert(conn, "r-1", SPEC, RolloutState.RUNNING, NOW)
        await conn.execute(text("INSERT INTO release_chunks VALUES ('gateway/1.1.0', :cid, 9)"), {"cid": "a" * 64})
    progress = Progress(rollout="r-1", state=State.DOWNLOADING, percent=12)
    await desk.ingest.take([
        hint(Kind.PROGRESS, "dev1", progress), hint(Kind.WANT, "dev1", Want(rollout="r-1", cids=["a" * 64])),
        hint(Kind.PRESENCE, "dev1", Presence(session=1, online=True)),
    ])  # fmt: skip
    assert (await row(desk.db, "dev1")).percent == 12
    assert desk.wanted == [{"a" * 64}]
    async with desk.db.read() as conn:
        device = await devices.get(conn, "dev1")
    assert device is not None and device.online


async def test_a_flood_of_wants_is_bounded_work(desk: Desk) -> None:
    """Whatever a device wants for ever, delivery hears of a bucket of its own release's chunks; the rest is counted."""
    one = Speaker("dev1")
    await admit(desk.db, one, offered=True)
    cids = [f"{number:064x}" for number in range(640)]
    async with desk.db.begin() as conn:
        await rollouts.insert(conn, "r-1", SPEC, RolloutState.RUNNING, NOW)
        rows = [{"cid": cid, "release": "gateway/1.1.0" if n % 2 else "gateway/9"} for n, cid in enumerate(cids)]
        await conn.execute(text("INSERT INTO release_chunks VALUES (:release, :cid, 9)"), rows)
    for _ in range(5):
        wants = [Want(rollout="r-1", cids=cids[start : start + 64]) for start in range(0, 640, 64)]
        await desk.ingest.take([hint(Kind.WANT, "dev1", want) for want in wants])
    assert [len(wanted) for wanted in desk.wanted] == [32]
    assert desk.wants_dropped("device_limit") == 5 * 640 - 64
    assert desk.wants_dropped("not_of_release") == 32


async def test_a_database_that_fails_loses_no_report(desk: Desk) -> None:
    """A table is away while a batch comes, keys included: the batch waits and is stored when it is back."""
    one = Speaker("dev1")
    await admit(desk.db, one)
    async with desk.db.begin() as conn:
        await conn.execute(text("ALTER TABLE devices RENAME TO away"))
    taking = asyncio.create_task(desk.ingest.take([one.ready(1, 1)]))
    done, _ = await asyncio.wait({taking}, timeout=0.3)
    assert not done, "it neither gave up nor ended"
    async with desk.db.begin() as conn:
        await conn.execute(text("ALTER TABLE away RENAME TO devices"))
    async with asyncio.timeout(10):
        await taking
    assert (await row(desk.db, "dev1")).ready


async def test_a_report_that_the_database_never_takes_is_dropped_alone(desk: Desk) -> None:
    """One row refuses every change: its report is dropped and counted, the other six are stored."""
    speakers = [Speaker(f"dev{n}") for n in range(7)]
    await admit(desk.db, *speakers)
    async with desk.db.begin() as conn:
        await conn.execute(text(
            "CREATE TRIGGER stuck BEFORE UPDATE ON assignments WHEN NEW.device = 'dev3' "
            "BEGIN SELECT RAISE(ABORT, 'stuck'); END"
        ))  # fmt: skip
    async with asyncio.timeout(10):
        await desk.ingest.take([one.ready(1, 1) for one in speakers])
    assert desk.ingest.rejects.counts == {"not_stored": 1}
    assert [(await row(desk.db, one.device)).ready for one in speakers] == [n != 3 for n in range(7)]


async def test_a_damaged_key_silences_its_own_device_only(desk: Desk) -> None:
    """The row of one device's key is not what was written: the other device is heard."""
    one, other = Speaker("dev1"), Speaker("dev2")
    await admit(desk.db, one, other)
    async with desk.db.begin() as conn:
        await conn.execute(text("UPDATE devices SET report_key = '{}' WHERE id = 'dev1'"))
    await desk.ingest.take([one.ready(1, 1), other.ready(1, 1)])
    assert desk.ingest.rejects.counts == {"E_SCOPE": 1}
    assert (await row(desk.db, "dev2")).ready


class Flood:
    """A session that lost messages; only here, since a real one loses them when 20,000 wait."""

    def __init__(self, dropped: int) -> None:
        self.dropped = dropped

    def drain(self) -> Iterator[Message]:
        """Nothing waits any more."""
        return iter(())


async def test_what_overflowed_is_asked_for_again(desk: Desk) -> None:
    """Lost reports are counted and a new generation begins, but not one after the other."""
    one = Speaker("dev1")
    await admit(desk.db, one)

    async def generation() -> str:
        async with desk.db.read() as conn:
            return await published.ingest_generation(conn, "main")

    await desk.ingest._begin_generation()
    first, flood = await generation(), Flood(dropped=3)
    await desk.ingest._collect(flood, one.ready(1, 1))  # type: ignore[arg-type]
    assert await generation() == first, "it has only just begun"
    desk.clock.advance(LEVEL_EVERY_S)
    await desk.ingest._collect(flood, one.ready(1, 2))  # type: ignore[arg-type]
    second = await generation()
    assert second != first
    assert desk.ingest.rejects.counts == {"overflow": 3}
    desk.clock.advance(LEVEL_EVERY_S)
    await desk.ingest._collect(flood, one.ready(1, 3))  # type: ignore[arg-type]
    assert await generation() == second, "nothing more was lost"


_ONE, _OTHER = Speaker("dev1"), Speaker("dev2")
_GOOD = [
    _ONE.ready(1, 1), _ONE.state(1, 2, State.DOWNLOADING), _ONE.inventory(1, 3), _OTHER.ready(1, 1),
    hint(Kind.PRESENCE, "dev1", Presence(session=1, online=True)),
    hint(Kind.PROGRESS, "dev1", Progress(rollout="r-1", state=State.DOWNLOADING, percent=1)),
    hint(Kind.WANT, "dev1", Want(rollout="r-1", cids=["a" * 64])),
]  # fmt: skip
_TOPIC = st.one_of(
    st.sampled_from([one.topic for one in _GOOD]),
    st.text(max_size=40),
    st.text(max_size=20).map(f"ota/v1/{FLEET}/up/".__add__),
)
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)),
    max_leaves=12,
)


def _altered(data: tuple[Message, int, str, Any]) -> Message:
    """A good message with one field replaced, below a signature that holds where it has one."""
    good, seq, name, value = data
    envelope = json.loads(good.payload)
    if "payload" not in envelope:
        return Message(good.topic, json.dumps(envelope | {name: value}).encode(), retain=False, qos=1)
    fields = json.loads(base64.b64decode(envelope["payload"])) | {"seq": seq} | {name: value}
    signer = _ONE.signer if "dev1" in good.topic else _OTHER.signer
    payload = sign(json.dumps(fields).encode(), envelope["payloadType"], signer)
    return Message(good.topic, payload, retain=False, qos=1)


def _torn(data: tuple[Message, int, str, Any]) -> Message:
    """A good message whose envelope is cut, or has another field."""
    good, cut, name, value = data
    envelope = json.dumps(json.loads(good.payload) | {name: value}).encode()
    return Message(good.topic, envelope if cut % 2 else good.payload[:cut], retain=True, qos=1)


_FIELDS = [
    "session",
    "seq",
    "attempt",
    "bytes_fetched",
    "percent",
    "cids",
    "v",
    "rollout",
    "reasons",
    "device",
    "state",
]
_ODD = st.one_of(_JSON, st.sampled_from([2**63, -1, float("inf"), "\x00", "r-1", 1]))
_SEQ = st.integers(1, 1000)
_MESSAGE = st.one_of(
    st.sampled_from(_GOOD),
    st.tuples(st.sampled_from(_GOOD), _SEQ, st.sampled_from(_FIELDS), _ODD).map(_altered),
    st.tuples(st.sampled_from(_GOOD), _SEQ, st.sampled_from(["payload", "payloadType", "signatures"]), _ODD).map(_torn),
    st.builds(Message, _TOPIC, st.binary(max_size=200), st.booleans(), st.just(1)),
)
_MESSAGES = st.lists(_MESSAGE, max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_MESSAGES, max_size=3))
def test_nothing_that_arrives_ends_it_or_bends_the_counts(batches: list[list[Message]]) -> None:
    """Noise, cut and altered envelopes, signed nonsense: afterwards counts equal a recount and a report is taken."""
    asyncio.run(_survive(batches))


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=False, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_MESSAGES, max_size=3))
def test_nothing_else_that_arrives_does(batches: list[list[Message]]) -> None:
    """Others every time."""
    asyncio.run(_survive(batches))


async def _survive(batches: list[list[Message]]) -> None:
    with tempfile.TemporaryDirectory(prefix="ingest-") as directory:
        db = await open_new(Path(directory) / "db.sqlite")
        try:
            await admit(db, _ONE, _OTHER, offered=True)
            desk = Desk(db, Home(Path(directory)))
            async with asyncio.timeout(20):
                for batch in batches:
                    await desk.ingest.take(batch)
                await desk.ingest.take([Speaker("dev2", _OTHER.signer).state(5, 1, State.FAILED)])
            assert "not_stored" not in desk.ingest.rejects.counts
            assert (await row(db, "dev2")).state == State.FAILED
            async with db.read() as conn:
                assert await assignments.load_counts(conn, "r-1") == await assignments.recount(conn, "r-1")
        finally:
            await db.close()


async def test_it_listens_again_after_the_broker_died(lab: Lab) -> None:
    """On a real broker: a report arrives; the broker is killed; a new generation begins and the next one arrives."""
    one = Speaker("dev1")
    await admit(lab.db, one)
    ingest = Ingest(lab.db, lab.home, lab.settings, SystemClock(), lambda: None, lambda: None)
    certificate, key = lab.home.certificate("dev1")
    device = ConnectionSettings(
        host="127.0.0.1", port=lab.settings.broker.device_port, client_id="dev1", ca=lab.home.devices_ca,
        certificate=certificate, key=key,
    )  # fmt: skip

    async def generation() -> str:
        async with lab.db.read() as conn:
            return await published.ingest_generation(conn, "main")

    async def say(report: Message) -> None:
        async with connect(device) as session:
            await session.publish(report.topic, report.payload)

    async def is_ready() -> bool:
        return (await row(lab.db, "dev1")).ready

    async def is_not_ready() -> bool:
        return not await is_ready()

    async def listens() -> bool:
        return await generation() != before

    before = ""
    task = asyncio.create_task(ingest.run())
    try:
        await until(listens, "it listens")
        await say(one.ready(1, 1))
        await until(is_ready, "the report is stored")
        before, process = await generation(), lab.broker.process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        await until(listens, "it listens again")
        await say(one.ready(2, 1, ready=False))
        await until(is_not_ready, "the next report is stored")
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
