"""An office for each test that asks for one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.orchestrator.fleet.asking import Office, open_office


@pytest.fixture
async def bureau(tmp_path: Path) -> AsyncIterator[Office]:
    """A home with CAs, an empty database, a clock that stands still."""
    office = await open_office(tmp_path)
    yield office
    await office.db.close()
