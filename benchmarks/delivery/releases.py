"""A release and a fleet for the rows: what was published, under which topics, and devices' certificates."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks._devices import enrol
from benchmarks.delivery.raw_clients import Identity
from benchmarks.orchestrator_cpu import HARDWARE, PRODUCT, Fleet
from device_client.config import DeviceHome
from device_client.identity_files import IdentityFiles
from orchestrator.config import Home
from orchestrator.package import CHUNK, PackageReader
from protocol.topics import Kind, Topics


@dataclass(frozen=True, slots=True)
class Published:
    """A release on the broker.

    Attributes:
        chunks: Ciphertext by topic, in the stream's order.
    """

    version: str
    chunks: Mapping[str, bytes]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes by topic."""
        return {topic: len(data) for topic, data in self.chunks.items()}

    @property
    def size_bytes(self) -> int:
        """Of all ciphertexts."""
        return sum(map(len, self.chunks.values()))


async def publish_random(fleet: Fleet, size_bytes: int) -> Published:
    """Make and publish a release of bytes that do not compress."""
    version, package, _ = await asyncio.to_thread(fleet.create, size_bytes)
    await fleet.publish(package)
    return Published(version, await asyncio.to_thread(chunks, package, Home(fleet.home).load().fleet))


def chunks(package: Path, fleet: str) -> dict[str, bytes]:
    """Ciphertexts of a package by topic. Blocking."""
    topics = Topics(fleet)
    with PackageReader(package) as reader:
        return {
            topics.build(Kind.CHUNK, cid=name.removeprefix(CHUNK)): reader.read(name) for name in reader.names(CHUNK)
        }


async def identities(fleet: Fleet, count: int) -> dict[str, Identity]:
    """Certificates of ``count`` new devices by name."""
    names = [f"d{number:03}" for number in range(count)]
    folder = fleet.place / "devices"
    folder.mkdir()
    await asyncio.to_thread(enrol, fleet.home, folder, names, PRODUCT, HARDWARE)
    files = {name: IdentityFiles(DeviceHome(folder / name)) for name in names}
    return {name: Identity(one.ca, one.certificate, one.device_key) for name, one in files.items()}


def digest(data: bytes | bytearray | memoryview) -> str:
    """sha256, hex."""
    return hashlib.sha256(data).hexdigest()
