"""An ingest over an empty database; and the running broker of delivery's tests."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.config import Home, Settings
from orchestrator.ingest.ingest import Ingest
from orchestrator.metrics import Metrics
from orchestrator.storage.database import Database
from protocol.clock import ManualClock
from tests.orchestrator.databases import open_new
from tests.orchestrator.delivery.conftest import lab
from tests.orchestrator.ingest.speakers import FLEET, NOW

__all__ = ["lab"]


@dataclass
class Desk:
    """An ingest, and what it woke."""

    db: Database
    home: Home
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    delivery: int = 0
    controller: int = 0
    wanted: list[set[str]] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        """Make the ingest."""
        settings = Settings(fleet=FLEET)
        wakes = self._wake_delivery, self._wake_controller
        self.ingest = Ingest(self.db, self.home, settings, self.clock, *wakes, None, self._want, self.metrics)

    def _want(self, cids: Collection[str]) -> None:
        self.wanted.append(set(cids))

    def wants_dropped(self, reason: str) -> float:
        """How many wants were dropped for a reason."""
        return self.metrics.registry.get_sample_value("flagship_wants_dropped_total", {"reason": reason}) or 0

    def _wake_delivery(self) -> None:
        self.delivery += 1

    def _wake_controller(self) -> None:
        self.controller += 1


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """An ingest that is handed its messages."""
    db = await open_new(tmp_path / "db.sqlite")
    yield Desk(db, Home(tmp_path))
    await db.close()
