"""The API over a real home and database; what lies behind delivery is seen, not sent."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from orchestrator.cli.init import HomePlan, initialise
from orchestrator.config import Home
from orchestrator.delivery.broker_set import Published, Standing
from orchestrator.errors import ConflictError
from orchestrator.fleet.admission import Admission
from orchestrator.metrics import Metrics
from orchestrator.model.device import Dropped
from orchestrator.rollouts.offline import OfflineDesk
from orchestrator.signer.signer import Signer
from orchestrator.storage import releases
from orchestrator.storage.database import Database
from orchestrator.storage.releases import PUBLISHED, ReleaseRecord
from orchestrator.web.app import create_app
from orchestrator.web.services import Services
from protocol.clock import ManualClock
from protocol.manifest import ReleaseInfo
from tests.orchestrator.databases import open_new

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
MAX_PACKAGE_BYTES = 4 << 20


@dataclass
class Bell:
    """Counts how often it was rung."""

    woken: int = 0

    def wake(self) -> None:
        """Count."""
        self.woken += 1


@dataclass
class Seen:
    """Stands where controller, delivery and importer stand, and remembers what it was asked."""

    db: Database
    connected: bool = True
    signer_trouble: str = ""
    woken: int = 0
    anchor: Bell = field(default_factory=Bell)
    barriers: int = 0
    cut: list[str] = field(default_factory=list)
    behind: dict[str, str] = field(default_factory=dict)
    packages: list[bytes] = field(default_factory=list)
    trust: list[tuple[dict[str, bytes], bool, bool]] = field(default_factory=list)
    importers: list[str] = field(default_factory=list)
    ceremonies: list[str] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    published: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    keys_changed: list[str] = field(default_factory=list)
    dropped: dict[str, Dropped] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)
    still_to_do: str | None = None
    expiry: dict[str, datetime] = field(default_factory=dict)

    async def pending(self, device: str, timeout_s: float) -> str | None:
        """What the broker has yet to do."""
        return self.still_to_do

    def forget(self, device: str) -> None:
        """Remember."""
        self.forgotten.append(device)

    def wake(self) -> None:
        """Count."""
        self.woken += 1

    async def barrier(self) -> list[str]:
        """Count."""
        self.barriers += 1
        return self.cut

    async def publish_release(self, release: str) -> Published:
        """Remember."""
        self.published.append(release)
        async with self.db.begin() as conn:
            await releases.set_state(conn, release, PUBLISHED)
        return Published(4711, self.behind)

    async def standing(self) -> list[Standing]:
        """One broker, as it is set."""
        return [Standing("main", self.connected, 3, ["gateway/1.1.0"], "")]

    async def take_in(
        self, files: Mapping[str, bytes], *, stolen: bool, check_only: bool, actor: str
    ) -> dict[str, int]:
        """Remember."""
        self.ceremonies.append(actor)
        self.trust.append((dict(files), stolen, check_only))
        return {"root": 2}

    async def check_leaving(self, keyids: Collection[str]) -> None:
        """Every key is in use."""
        raise ConflictError(f"director key {min(keyids)[:12]}: 1 announcements and 2 offers under it have not expired")

    async def import_package(self, path: Path, actor: str) -> str:
        """Remember the bytes and store a release."""
        self.paths.append(path)
        self.importers.append(actor)
        self.packages.append(await asyncio.to_thread(path.read_bytes))
        await asyncio.wait_for(self.gate.wait(), 10)
        if self.error:
            raise self.error
        await store_release(self.db, "gateway", "1.1.0", state="importing")
        return "gateway/1.1.0"


@dataclass
class Api:
    """The API and what stands behind it."""

    http: httpx.AsyncClient
    services: Services
    seen: Seen
    app: object

    @property
    def db(self) -> Database:
        """The database."""
        return self.services.db

    async def make_token(self, name: str) -> dict[str, str]:
        """Make a token; returns the header that it is sent in."""
        answer = await self.http.post("/api/v1/tokens", json={"name": name})
        assert answer.status_code == 201, answer.text
        return {"Authorization": f"Bearer {answer.json()['token']}"}


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home; tests bring databases of their own."""
    return initialise(tmp_path_factory.mktemp("fleet") / "home", HomePlan("harbour", ("gateway",)))


@pytest.fixture
async def api(home: Home, tmp_path: Path) -> AsyncIterator[Api]:
    """The API with the admin's token."""
    settings = home.load()
    broker = settings.broker.model_copy(update={"max_retained_bytes": MAX_PACKAGE_BYTES, "enrol_port": 18885})
    db = await open_new(tmp_path / "flagship.sqlite")
    seen = Seen(db)
    seen.gate.set()
    settings = settings.model_copy(update={"broker": broker})
    clock = ManualClock(NOW)
    signer = Signer.open(home, settings, clock)
    services = Services(
        home=home,
        settings=settings,
        db=db,
        clock=clock,
        admission=Admission(db, home, settings, clock, seen.keys_changed.append),
        controller=seen,
        anchor=seen.anchor,
        offline=OfflineDesk(db, clock, signer, timedelta(days=1)),
        delivery=seen,
        keeping_out=seen,
        forget_keys=seen.forget,
        import_package=seen.import_package,
        trust=seen,
        metrics=Metrics(),
        dropped=seen.dropped.get,
    )
    app = create_app(services)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {home.admin_token.read_text().strip()}"}
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://flagship", headers=headers) as http:
            yield Api(http, services, seen, app)
    finally:
        signer.close()
        await db.close()


async def store_release(db: Database, product: str, version: str, state: str = PUBLISHED) -> None:
    """A release row, as an import leaves it."""
    info = ReleaseInfo(
        product=product,
        version=version,
        component="app",
        hardware=["rev-a"],
        counter=1,
        space_bytes=1000,
        pieces=["0" * 64],
        chunk_count=1,
    )
    record = ReleaseRecord(
        id=f"{product}/{version}",
        product=product,
        version=version,
        component="app",
        path=f"{product}/{version}/manifest",
        length=100,
        sha256="1" * 64,
        counter=1,
        info=info.model_dump(mode="json"),
        wrapped_key=b"sealed",
        image_bytes=1000,
        chunk_bytes=900,
        state=state,
        imported_at=NOW,
    )
    async with db.begin() as conn:
        await releases.insert_release(conn, record, {"0" * 64: 900})
