"""A home with its publisher's folder, its real signer and database, and packages to take in."""

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.cli.init import HomePlan
from orchestrator.config import Home, Settings
from orchestrator.package import PackageReader
from orchestrator.package_writer import PackageWriter
from orchestrator.publisher.ceremony import hold_ceremony
from orchestrator.publisher.creating import ReleaseSpec, create_release
from orchestrator.publisher.workspace import Workspace
from orchestrator.releases.importer import import_package
from orchestrator.signer.signer import Signer
from orchestrator.storage import releases
from orchestrator.storage.chunk_store import ChunkStore
from orchestrator.storage.database import Database
from orchestrator.storage.releases import ReleaseRecord
from protocol.clock import ManualClock
from protocol.identifiers import ReleaseName
from protocol.manifest import Policy

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
FLEET, PRODUCTS = "harbour", ("gateway", "sensor")
Change = Callable[[dict[str, bytes]], None]


def make_keys(home: Home, fleet: str = FLEET) -> None:
    """Keys and first metadata of a fleet, without all that an import does not look at."""
    plan = HomePlan(fleet, PRODUCTS)
    hold_ceremony(
        home.publisher, home.signer, home.trust, fleet=fleet, products=PRODUCTS, thresholds=plan.thresholds, now=NOW
    )
    home.config.write_text(f'fleet = "{fleet}"\nproduct = "{PRODUCTS[0]}"\n')
    home.chunks.mkdir()


def make_image(place: Path, seed: int) -> Path:
    """Some files, one of them empty."""
    source = random.Random(seed)
    place.mkdir()
    for number in range(6):
        (place / f"f{number}").write_bytes(source.randbytes(source.randrange(1, 120_000)))
    (place / "empty").touch()
    return place


def make_package(
    publisher: Path, image: Path, version: str, product: str = PRODUCTS[0], now: datetime = NOW, name: str = ""
) -> Path:
    """What ``flagship release create`` makes, in the image's parent folder."""
    spec = ReleaseSpec(
        name=ReleaseName(product, version),
        component="app",
        hardware=("rev-a",),
        requires={},
        conflicts={},
        policy=Policy(),
    )
    output = image.parent / (name or f"{product}-{version}.package")
    return create_release(image, output, spec, Workspace(publisher), now).path


def rewrite(package: Path, change: Change) -> Path:
    """The package with other blobs, its frame whole: what somebody in between can make without a key."""
    with PackageReader(package) as reader:
        blobs = {name: reader.read(name) for name in reader.names()}
    change(blobs)
    output = package.with_suffix(".changed")
    with PackageWriter(output) as writer:
        for name, data in blobs.items():
            writer.add(name, data)
    return output


@dataclass(frozen=True)
class Depot:
    """Everything that an import works on."""

    home: Home
    db: Database
    chunks: ChunkStore
    signer: Signer
    clock: ManualClock
    image: Path

    async def take(self, package: Path, now: datetime = NOW + timedelta(hours=1)) -> ReleaseRecord:
        """Import a package at an instant, the signer's own."""
        self.clock.set_wall(now)
        return await import_package(package, self.home, self.db, self.chunks, self.signer, now)

    async def known(self) -> list[str]:
        """Ids of the releases in the database."""
        async with self.db.read() as conn:
            return [record.id for record in await releases.page(conn)]

    def trust(self) -> dict[str, bytes]:
        """What is published."""
        return {path.name: path.read_bytes() for path in self.home.trust.iterdir()}

    def stored(self) -> set[str]:
        """Names of chunks in the store."""
        return {path.name for path in self.home.chunks.glob("*/*")}


@pytest.fixture
async def depot(tmp_path: Path) -> AsyncIterator[Depot]:
    """A fleet that has imported nothing yet."""
    home = Home(tmp_path / "home")
    home.path.mkdir()
    make_keys(home)
    db = await Database.open(home.database)
    clock = ManualClock(NOW)
    signer = Signer.open(home, Settings(fleet=FLEET), clock)
    yield Depot(home, db, ChunkStore(home.chunks), signer, clock, make_image(tmp_path / "image", 1))
    await db.close()


@pytest.fixture
def package(depot: Depot) -> Path:
    """gateway/1.1.0, ready to be taken in."""
    return make_package(depot.home.publisher, depot.image, "1.1.0")
