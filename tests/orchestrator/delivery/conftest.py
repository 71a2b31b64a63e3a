"""A running broker and an empty database for each test that asks for ``lab``."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from orchestrator.config import Home, Settings, TimingSettings
from orchestrator.config_brokers import BrokerSettings
from orchestrator.delivery.broker import ManagedBroker
from orchestrator.signer.signer import Signer
from orchestrator.storage.chunk_store import ChunkStore
from orchestrator.storage.database import Database
from protocol.topics import Topics
from tests.certificates import free_ports
from tests.orchestrator.databases import open_new
from tests.orchestrator.delivery.lab import DEADLINE_S, FLEET, Lab, make_certificates, make_keys


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """A running broker and an empty database; nothing delivers yet."""
    home = Home(tmp_path)
    home.ca.mkdir()
    home.chunks.mkdir()
    device_port, service_port = free_ports()
    settings = Settings(
        fleet=FLEET,
        broker=BrokerSettings(device_port=device_port, service_port=service_port),
        timing=TimingSettings(tick_s=0.05, status_interval_s=0.05, read_back_s=2.0),
    )
    make_certificates(home)
    package_key = make_keys(home)
    broker = ManagedBroker(home, settings)
    running = asyncio.create_task(broker.run())
    db = await open_new(home.database)
    try:
        await broker.ready(DEADLINE_S)
        yield Lab(
            home=home,
            settings=settings,
            db=db,
            signer=Signer.open(home, settings),
            chunks=ChunkStore(home.chunks),
            broker=broker,
            content_key=X25519PrivateKey.generate(),
            package_key=package_key,
            topics=Topics(FLEET),
        )
    finally:
        await db.close()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database, where no broker is needed."""
    database = await open_new(tmp_path / "alone.sqlite")
    yield database
    await database.close()
