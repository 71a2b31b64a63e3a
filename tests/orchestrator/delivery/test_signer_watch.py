"""Delivery and its signer: limited, away, or of another opinion about a halt. Nothing is lost, and status says so."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update

from orchestrator.config import SignerSettings
from orchestrator.signer.client import SignerClient
from orchestrator.signer.seam import AnnouncementRequest
from orchestrator.signer.server import SignerServer
from orchestrator.signer.signer import Signer
from orchestrator.storage import dirty
from orchestrator.storage.tables import devices, events, releases
from orchestrator.storage.tables import dirty as dirty_table
from orchestrator.storage.tables import published as published_table
from protocol.topics import Kind
from tests.integration.small_fleet import short_place
from tests.orchestrator.delivery.lab import RELEASE, Lab, until

REF = {"path": f"{RELEASE}/manifest", "length": 100, "counter": 1}


async def offered(lab: Lab) -> int:
    """Offers that the broker has."""
    async with lab.db.read() as conn:
        found = select(func.count()).select_from(published_table).where(published_table.c.kind == "OFFER")
        return int(await conn.scalar(found) or 0)


async def empty(lab: Lab) -> bool:
    """Nothing is marked."""
    async with lab.db.read() as conn:
        return not await conn.scalar(select(func.count()).select_from(dirty_table))


async def fleet_status(lab: Lab) -> dict[str, Any]:
    """What dashboards read."""
    raw = await lab.retained(lab.topics.build(Kind.STATUS_FLEET), "viewer")
    return json.loads(raw) if raw else {}


async def test_offers_beyond_the_signers_limit_go_out_later(lab: Lab) -> None:
    """They stay marked; all of them arrive, none twice."""
    limits = SignerSettings(offers_per_minute=600, offers_burst=2)
    lab.signer = Signer.open(lab.home, lab.settings.model_copy(update={"signer": limits}))
    await lab.add_release([])
    await lab.add_rollout([f"dev{number}" for number in range(6)])
    async with lab.observer([(lab.topics.filter(Kind.OFFER), 1)]) as observer, lab.running():
        await until(lambda: _is(offered(lab), 6), "all offers")
        await until(lambda: empty(lab), "no marks left")
        topics = [message.topic for message in observer.drain()]
    assert len(topics) == len(set(topics)) == 6
    refused = [line for line in _log(lab) if line.get("refused") == "later"]
    assert refused, "the limit was felt"


async def test_a_signer_that_is_away_is_waited_for(lab: Lab) -> None:
    """Before the start and in between: status says so, marks stay, and all is signed when it is back."""
    await lab.add_release([])
    await lab.add_rollout(["dev1"])
    room = lab.signer
    with short_place() as place:
        client = SignerClient(place / "s.sock", 5.0)
        lab.signer = client
        try:
            async with lab.running() as delivery:
                await until(lambda: _has(delivery.signer_trouble, "nobody listens there"), "trouble")
                async with SignerServer(room, place / "s.sock", 5.0).listening():
                    await until(lambda: _is(offered(lab), 1), "the offer")
                    assert delivery.signer_trouble == ""
                async with lab.db.begin() as conn:
                    await dirty.mark(conn, Kind.OFFER, ["dev1/r-1"], datetime.now(UTC))
                delivery.wake()
                await until(lambda: _has(delivery.signer_trouble, "nobody listens there"), "trouble again")
                assert delivery.connected, "the broker's connection is no matter of the signer"
                await until(lambda: _says(lab, "nobody listens there"), "status says so")
                assert not await empty(lab)
                async with SignerServer(room, place / "s.sock", 5.0).listening():
                    await until(lambda: empty(lab), "no marks left")
                    await until(lambda: _says(lab, None), "status says that it is over")
        finally:
            await asyncio.to_thread(client.close)


async def test_a_halt_that_the_database_does_not_know_holds(lab: Lab) -> None:
    """An older database was put back: nothing goes out, status says what to do; lifted by a person, it goes on."""
    await lab.add_release([])
    await lab.add_rollout(["dev1"])
    async with lab.db.read() as conn:
        sha256 = await conn.scalar(select(releases.c.sha256))
    hold = {
        "rollout": "r-1", "action": "hold", "expires": datetime.now(UTC) + timedelta(hours=1),
        "release": {**REF, "sha256": sha256},
    }  # fmt: skip
    lab.signer.sign([AnnouncementRequest(hold, halts=1, reason="smoke")])
    async with lab.running() as delivery:
        await until(lambda: _has(delivery.signer_trouble, "the database does not know it"), "trouble")
        await until(lambda: empty(lab), "no marks left")
        assert "smoke" in delivery.signer_trouble and await offered(lab) == 0
        assert await lab.retained(lab.topics.build(Kind.ANNOUNCE, rollout="r-1")) is None
        await until(lambda: _says(lab, "signer lift r-1"), "status says what to do")
        lab.signer.lift("r-1", "looked at it")
        async with lab.db.begin() as conn:
            await dirty.mark(conn, Kind.ANNOUNCE, ["r-1"], datetime.now(UTC))
        delivery.wake()
        await until(lambda: _is(offered(lab), 1), "the offer that was kept back")
        assert delivery.signer_trouble == ""
    async with lab.db.read() as conn:
        kinds = await conn.scalars(select(events.c.kind))
        assert list(kinds) == ["epoch_raised"], "the database was behind"


async def test_devices_that_were_revoked_are_told_at_the_start(lab: Lab) -> None:
    """So that no later, older database has them offered to."""
    await lab.add_release([])
    await lab.add_rollout(["dev1", "dev2"])
    async with lab.db.begin() as conn:
        await conn.execute(update(devices).where(devices.c.id == "dev2").values(state="revoked"))
    async with lab.running():
        await until(lambda: _is(offered(lab), 1), "the offer of the other")
    async with lab.db.begin() as conn:
        await conn.execute(update(devices).values(state="enrolled"))
        await dirty.mark(conn, Kind.OFFER, ["dev2/r-1"], datetime.now(UTC))
    async with replace(lab).running():
        await until(lambda: empty(lab), "no marks left")
    assert await offered(lab) == 1
    assert _log(lab)[-1]["refused"] == "revoked"


def _log(lab: Lab) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (lab.home.signer / "requests.log").read_text().splitlines()]


async def _is(found: Any, expected: object) -> bool:
    return bool(await found == expected)


async def _has(text: str, part: str) -> bool:
    return part in text


async def _says(lab: Lab, part: str | None) -> bool:
    said = (await fleet_status(lab)).get("signer")
    return said is None if part is None else part in (said or "")
