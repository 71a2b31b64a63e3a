"""An empty database for every test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.storage.database import Database
from tests.orchestrator.databases import open_new


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    database = await open_new(tmp_path / "db.sqlite")
    yield database
    await database.close()
