"""Ingest of an orchestrator that another one replaced."""

import asyncio

import pytest

from orchestrator.errors import LostLeadError
from orchestrator.storage.database import Database
from tests.orchestrator.ingest.conftest import Desk
from tests.orchestrator.ingest.speakers import NOW, Speaker, admit, row

DEADLINE_S = 10.0


async def test_reports_are_not_dropped_by_who_lost_the_lead(desk: Desk) -> None:
    """Nothing is written or counted as damaged: the error ends the process, the other one hears the devices."""
    one = Speaker("dev1")
    await admit(desk.db, one)
    other = await Database.open(desk.db.path)
    try:
        await other.take_lead(NOW)
    finally:
        await other.close()
    with pytest.raises(LostLeadError):
        async with asyncio.timeout(DEADLINE_S):
            await desk.ingest.take([one.ready(1, 1)])
    assert desk.ingest.rejects.counts == {} and not (await row(desk.db, "dev1")).ready
