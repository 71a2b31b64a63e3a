"""Orders for a medium: for members of a running rollout, signed, written down, and never after a halt."""

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from orchestrator.config import Home, Settings
from orchestrator.errors import ConflictError, NotAllowedError, NotFoundError, UsageError
from orchestrator.model.device import DeviceState
from orchestrator.model.plan import StageSpec
from orchestrator.rollouts import operations
from orchestrator.rollouts.offline import MAX_DEVICES, OfflineDesk
from orchestrator.signer.keys import load_signer, load_x25519
from orchestrator.signer.seam import Refusal, Request, Signed
from orchestrator.signer.signer import Signer
from orchestrator.storage import assignments, dirty, events, published
from protocol.directives import ANNOUNCEMENT_TYPE, OFFER_TYPE, Action, Announcement, Grant, Offer
from protocol.encryption import PACKAGE_RECIPIENT, unwrap_key, wrap_key
from protocol.envelopes import open_envelope, verify_with
from protocol.states import State
from protocol.topics import Kind
from tests.orchestrator.delivery.lab import make_keys
from tests.orchestrator.rollouts.yard import LEASE_S, Yard, plan

SHA, CEK = "1" * 64, b"c" * 32
MONTH = timedelta(days=30)


@dataclass
class Desk:
    """A yard, a signer with keys, and the desk between them."""

    yard: Yard
    home: Home
    signer: Signer
    desk: OfflineDesk
    keys: dict[str, X25519PrivateKey]

    async def run(self, *ids: str, spec: Any = None) -> str:
        """Devices with content keys of their own, and a rollout to them that has begun."""
        await self.yard.add_devices(ids)
        async with self.yard.db.begin() as conn:
            for name in ids:
                self.keys[name] = X25519PrivateKey.generate()
                public = base64.b64encode(self.keys[name].public_key().public_bytes_raw()).decode()
                await conn.exec_driver_sql("UPDATE devices SET content_key = ? WHERE id = ?", (public, name))
        rollout = await self.yard.run(spec)
        await self.yard.look()
        return rollout

    def opened(self, envelope: bytes, model: type[Any]) -> Any:
        """What is signed, its signature checked."""
        kind = OFFER_TYPE if model is Offer else ANNOUNCEMENT_TYPE
        verify = verify_with(load_signer(self.home.signer / "director.key").public_key)
        return open_envelope(envelope, 16_384, kind, verify, model)[0]


@pytest.fixture
async def desk(yard: Yard, tmp_path: Path) -> AsyncIterator[Desk]:
    """One for each test."""
    home = Home(tmp_path)
    make_keys(home)
    package = load_x25519(home.signer / "package.key").public_key()
    sealed = wrap_key(CEK, package, release=SHA, device=PACKAGE_RECIPIENT)
    async with yard.db.begin() as conn:
        await conn.exec_driver_sql("UPDATE releases SET wrapped_key = ?", (sealed,))
    signer = Signer.open(home, Settings(fleet="north"), yard.clock)
    yield Desk(yard, home, signer, OfflineDesk(yard.db, yard.clock, signer, timedelta(seconds=LEASE_S)), {})
    signer.close()


async def test_a_medium_carries_an_announcement_and_an_offer_for_each(desk: Desk) -> None:
    """Both until the same time; each offer with the key for its device, and nothing granted by nonce."""
    rollout = await desk.run("d1", "d2", "d3")
    made = await desk.desk.order(rollout, ["d2", "d1", "d2"], MONTH)
    assert made.until == desk.yard.clock.now() + MONTH
    announcement = desk.opened(made.announcement, Announcement)
    assert (announcement.action, announcement.offline_until, announcement.expires) == (
        Action.INSTALL, made.until, made.until,
    )  # fmt: skip
    assert list(made.offers) == ["d2", "d1"]
    for name, envelope in made.offers.items():
        offer = desk.opened(envelope, Offer)
        assert (offer.device, offer.grant, offer.offline_until) == (name, Grant.DOWNLOAD, made.until)
        wrap = base64.b64decode(offer.key_wrap)
        assert unwrap_key(wrap, desk.keys[name], release=SHA, device=name) == CEK


async def test_it_counts_as_an_offer_and_is_written_down(desk: Desk) -> None:
    """The devices are offered, their outcome will be taken in, and the record says who may act unasked and how long."""
    rollout = await desk.run("d1", "d2")
    made = await desk.desk.order(rollout, ["d1"], MONTH, actor="anna")
    await desk.yard.check_counts()
    async with desk.yard.db.read() as conn:
        rows = await assignments.get_many(conn, [(rollout, "d1"), (rollout, "d2")])
        happened = [event for event in await events.page(conn) if event["kind"] == "rollout_offline"]
    assert (rows[rollout, "d1"].state, rows[rollout, "d1"].grant) == ("offered", "download")
    assert rows[rollout, "d2"].offered_at is None
    assert len(happened) == 1 and happened[0]["actor"] == "anna"
    assert happened[0]["data"] == {"devices": ["d1"], "until": made.until.strftime("%Y-%m-%dT%H:%M:%SZ")}
    assert "does not reach them" in happened[0]["text"]
    await desk.yard.report(rollout, "d1", State.SUCCEEDED)
    async with desk.yard.db.read() as conn:
        row = await assignments.get(conn, rollout, "d1")
    assert row is not None and row.state == State.SUCCEEDED


async def test_what_stands_on_the_brokers_is_signed_anew(desk: Desk) -> None:
    """Announcement and offers are marked: a device that comes back finds later words than its medium's."""
    rollout = await desk.run("d1", "d2")
    async with desk.yard.db.begin() as conn:
        await dirty.done(conn, "main", await dirty.take(conn, "main", [Kind.ANNOUNCE, Kind.OFFER], 100))
    made = await desk.desk.order(rollout, ["d1"], MONTH)
    async with desk.yard.db.read() as conn:
        marks = {(kind, key) for kind, key, _ in await dirty.take(conn, "main", [Kind.ANNOUNCE, Kind.OFFER], 100)}
        assert await published.highest_order(conn) == desk.opened(made.offers["d1"], Offer).order
    assert marks == {(Kind.ANNOUNCE, rollout), (Kind.OFFER, f"d1/{rollout}")}


async def test_a_rollout_that_does_not_run_gets_none(desk: Desk) -> None:
    """Halted, paused or aborted."""
    rollout = await desk.run("d1")
    for verb in ("pause", "halt", "abort"):
        await operations.order(desk.yard.db, desk.yard.clock, rollout, operations.Order(verb=verb, reason="why"))
        with pytest.raises(ConflictError, match="expected running"):
            await desk.desk.order(rollout, ["d1"], MONTH)
    with pytest.raises(NotFoundError):
        await desk.desk.order("nothing", ["d1"], MONTH)


@pytest.mark.parametrize("verbs", [["halt"], ["halt", "resume"]], ids=["halted", "halted and resumed"])
async def test_a_halt_in_between_keeps_it_back(desk: Desk, verbs: list[str]) -> None:
    """What was signed before a halt that is written by now is not handed out, and nobody counts as offered."""
    rollout = await desk.run("d1")
    loop = asyncio.get_running_loop()

    class Slow:
        """Signs, and while the answer is on its way somebody halts."""

        def sign(self, requests: Sequence[Request]) -> list[Signed | Refusal]:
            answers = desk.signer.sign(requests)
            for verb in verbs:
                order = operations.order(
                    desk.yard.db, desk.yard.clock, rollout, operations.Order(verb=verb, reason="smoke")
                )
                asyncio.run_coroutine_threadsafe(order, loop).result(10)
            return answers

    slow = OfflineDesk(desk.yard.db, desk.yard.clock, Slow(), timedelta(seconds=LEASE_S))
    with pytest.raises(ConflictError, match="halted"):
        await slow.order(rollout, ["d1"], MONTH)
    async with desk.yard.db.read() as conn:
        row = await assignments.get(conn, rollout, "d1")
    assert row is not None and row.offered_at is None


async def test_who_cannot_be_given_one(desk: Desk) -> None:
    """No member, a stage that has not begun, a device that is done, one that is kept out, nobody, a crowd."""
    spec = plan(StageSpec(name="canary", percent=50), StageSpec(name="all", percent=100))
    rollout = await desk.run("d1", "d2", spec=spec)
    async with desk.yard.db.read() as conn:
        rows = await assignments.of_rollout(conn, rollout)
    canary, later = (next(row.device for row in rows if row.stage == stage) for stage in (0, 1))
    with pytest.raises(NotFoundError, match="not a member"):
        await desk.desk.order(rollout, [canary, "d9"], MONTH)
    with pytest.raises(ConflictError, match="has not begun"):
        await desk.desk.order(rollout, [later], MONTH)
    with pytest.raises(UsageError):
        await desk.desk.order(rollout, [], MONTH)
    with pytest.raises(UsageError):
        await desk.desk.order(rollout, [f"d{number}" for number in range(MAX_DEVICES + 1)], MONTH)
    await desk.yard.set_device_state(canary, DeviceState.REVOKED)
    with pytest.raises(ConflictError, match="kept out"):
        await desk.desk.order(rollout, [canary], MONTH)
    async with desk.yard.db.read() as conn:
        assert not [event for event in await events.page(conn) if event["kind"] == "rollout_offline"]


async def test_who_is_done_needs_none(desk: Desk) -> None:
    """An outcome is an outcome."""
    rollout = await desk.run("d1", "d2")
    await desk.desk.order(rollout, ["d1"], MONTH)
    await desk.yard.report(rollout, "d1", State.SUCCEEDED)
    with pytest.raises(ConflictError, match="succeeded"):
        await desk.desk.order(rollout, ["d1"], MONTH)


async def test_longer_than_the_limit(desk: Desk) -> None:
    """The signer refuses it, with the setting that says so; nobody counts as offered."""
    rollout = await desk.run("d1")
    with pytest.raises(NotAllowedError, match="offline_max_s"):
        await desk.desk.order(rollout, ["d1"], MONTH + timedelta(days=1))
    async with desk.yard.db.read() as conn:
        row = await assignments.get(conn, rollout, "d1")
    assert row is not None and row.offered_at is None
