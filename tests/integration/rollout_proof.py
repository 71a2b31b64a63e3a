"""What holds of every rollout with real agents: what the broker carried, the audit log, and counts against rows."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from sqlalchemy import select

from orchestrator.delivery.broker_access import service_connection
from orchestrator.demo.processes import command
from orchestrator.storage import assignments, rollouts
from orchestrator.storage.database import Database
from orchestrator.storage.engine_tables import scope_counts
from protocol.directives import Grant, Offer
from protocol.mqtt.connection import ConnectionLost, Session, connect
from protocol.topics import DELIVERY, Kind, Topics
from tests.integration.small_fleet import FLEET, SmallFleet, until


class Offers:
    """Every offer that the broker carried, in its order.

    Attributes:
        crowds: At each first grant to activate, who else had one without having come to an outcome.
    """

    def __init__(self, fleet: SmallFleet) -> None:
        self._fleet = fleet
        self.seen: list[Offer] = []
        self.crowds: list[tuple[str, set[str]]] = []

    def of(self, device: str, rollout: str) -> list[tuple[int, Grant]]:
        """(attempt, grant) of one device's offers; what is said twice stands once."""
        found: list[tuple[int, Grant]] = []
        for offer in self.seen:
            if (offer.device, offer.rollout) == (device, rollout) and (offer.attempt, offer.grant) not in found[-1:]:
                found.append((offer.attempt, offer.grant))
        return found

    def grants(self) -> int:
        """How many offers let a device activate."""
        return sum(offer.grant is Grant.ACTIVATE for offer in self.seen)

    def heard_outcome(self, device: str, rollout: str, attempt: int) -> bool:
        """Whether the device was told that the outcome of this attempt arrived."""
        return any(
            offer.heard.outcome is not None
            for offer in self.seen
            if (offer.device, offer.rollout, offer.attempt) == (device, rollout, attempt)
        )

    async def listen(self, session: Session) -> None:
        """Note what comes until the connection ends."""
        granted: set[str] = set()
        with contextlib.suppress(ConnectionLost):
            async for message in session.messages():
                if not message.payload:
                    continue
                offer = Offer.model_validate_json(base64.b64decode(json.loads(message.payload)["payload"]))
                self.seen.append(offer)
                if offer.grant is Grant.ACTIVATE and offer.device not in granted:
                    # Devices come to an outcome before they say it, and permits are free after that.
                    self.crowds.append((offer.device, {other for other in granted if not self._is_over(other)}))
                    granted.add(offer.device)

    def _is_over(self, device: str) -> bool:
        update = self._fleet.agents[device].runner.update
        return update is None or update.is_over


@contextlib.asynccontextmanager
async def watched(fleet: SmallFleet) -> AsyncIterator[Offers]:
    """Listen to all offers, under the certificate that may read them back."""
    offers = Offers(fleet)
    settings = await asyncio.to_thread(service_connection, fleet.home, fleet.settings, DELIVERY, purpose="watch")
    async with connect(settings) as session:
        await session.subscribe([(Topics(FLEET).filter(Kind.OFFER), 1)])
        listening = asyncio.create_task(offers.listen(session))
        try:
            yield offers
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening


async def until_downloading(fleet: SmallFleet, names: list[str], at_least_bytes: int = 100_000) -> None:
    """All of them have a part of the image."""
    fetchers = [fleet.agents[name]._fetcher for name in names]

    def begun() -> bool:
        return all(one.last is not None and one.last.present_bytes > at_least_bytes for one in fetchers)

    await until(begun, f"{', '.join(names)} in mid-transfer")


async def until_said(fleet: SmallFleet, device: str, holds: Callable[[dict[str, Any]], bool]) -> None:
    """Wait for what the orchestrator knows of a device's newest update."""
    async with asyncio.timeout(30):
        while True:
            updates = (await fleet.call("get", f"/devices/{device}"))["updates"]
            if updates and holds(updates[0]):
                return
            fleet.serve.check()
            await asyncio.sleep(0.1)


async def prove_sound(fleet: SmallFleet) -> None:
    """The audit log is whole, its decisions are decided again alike, and no counter differs from the rows.

    Stops ``serve``.
    """
    await command("flagship", "audit", "verify", "--home", str(fleet.home.path))
    await fleet.serve.stop()
    database = await Database.open(fleet.home.database)
    try:
        async with database.read() as conn:
            for rollout in await rollouts.page(conn):
                assert await assignments.load_counts(conn, rollout.id) == await assignments.recount(conn, rollout.id)
            query = select(scope_counts).where((scope_counts.c.held != 0) | (scope_counts.c.waiting != 0))
            found = {(row.scope, row.rollout): (row.held, row.waiting) for row in await conn.execute(query)}
            assert found == await assignments.recount_scopes(conn)
    finally:
        await database.close()
