"""A device's rooms with real keys, real metadata and real files; what comes down and goes up stays in the process."""

import asyncio
import base64
import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import TargetFile

from device_client.config import DeviceHome, DeviceSettings
from device_client.download.source_set import SourceSet
from device_client.download.sources import Collected
from device_client.floors_file import DeviceFloors
from device_client.installers.directory import DirectoryInstaller
from device_client.reporter import Reporter
from device_client.transfer import Fetcher
from device_client.verification.release import Verifier
from protocol.chunks import PIECE_BYTES
from protocol.clock import ManualClock
from protocol.directives import ANNOUNCEMENT_TYPE, OFFER_TYPE, Action, Announcement, Grant, Offer, ReleaseRef
from protocol.encryption import encrypt_body, make_body, seal_manifest, wrap_key
from protocol.envelopes import encode, sign
from protocol.errors import ErrorCode
from protocol.manifest import Artifact, FileEntry, Manifest, Policy, ReleaseInfo
from protocol.topics import Topics
from protocol.trust.checks import Receiver
from protocol.trust.workflow import TrustStore
from tests.protocol.trust.repository import DIRECTOR, FLEET, NOW, PRODUCT, Repository

DEVICE, HARDWARE, COMPONENT = "d1", "rev-a", "app"
TIMES = {
    "readiness_retry_s": 5,
    "readiness_level_s": 100,
    "gate_interval_s": 7,
    "chunk_timeout_s": 0.01,
    "connect_backoff_s": 0.001,
    "connect_backoff_cap_s": 0.01,
}


@dataclass(frozen=True)
class SealedRelease:
    """A release as the publisher made it: what both keys name, its content key, and what the broker holds of it."""

    ref: ReleaseRef
    version: str
    artifact: Artifact
    cek: bytes
    chunks: dict[str, bytes]


@dataclass
class Shelf:
    """A source that has every chunk of some releases, unless something stands in the way."""

    chunks: dict[str, bytes] = field(default_factory=dict)
    withheld: set[str] = field(default_factory=set)
    asked: int = 0
    received_bytes: int = 0
    name: str = "shelf"
    is_ready: bool = True

    def interrupt(self) -> None:
        """Nothing is ever out."""

    async def present(self) -> SourceSet:
        """Nothing but this shelf."""
        return SourceSet.of(self, Random(1))

    async def ready(self) -> None:
        """Always."""
        await asyncio.sleep(0)

    async def release(self) -> None:
        """Nothing is held."""

    async def collect(self, cids: Sequence[str], silence_s: float) -> Collected:
        """All that is not withheld."""
        await asyncio.sleep(0)
        self.asked += len(cids)
        return Collected({cid: self.chunks[cid] for cid in cids if cid in self.chunks and cid not in self.withheld})


@dataclass
class Line:
    """A session that keeps what was published, in order; or fails as it is told to."""

    sent: list[tuple[str, bytes]] = field(default_factory=list)
    failure: Exception | None = None

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, timeout_s: float | None = None
    ) -> None:
        """Keep it."""
        await asyncio.sleep(0)
        if self.failure:
            raise self.failure
        self.sent.append((topic, payload))

    def reports(self, kind: str) -> list[dict[str, Any]]:
        """The payloads of one kind (the topic's last word), signed ones opened."""
        found = []
        for topic, payload in self.sent:
            if topic.endswith(f"/{kind}"):
                data = json.loads(payload)
                found.append(json.loads(Envelope.from_dict(data).payload) if "payloadType" in data else data)
        return found


@dataclass
class Lab:
    """One device and those who speak to it."""

    path: Path
    settings_changes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = ManualClock(NOW)
        self.repository = Repository()
        self.home = DeviceHome(self.path)
        self.home.create()
        sections: dict[str, Any] = {
            "device": {"id": DEVICE, "product": PRODUCT, "hardware": HARDWARE},
            "timing": TIMES,
            "gates": {"disk_reserve_bytes": 0, "power_supply_root": str(self.path / "power")},
        }
        self.settings = DeviceSettings.model_validate(sections | self.settings_changes)
        self.content_key = X25519PrivateKey.generate()
        self.device_signer = CryptoSigner(ec.generate_private_key(ec.SECP256R1()))
        self.topics = Topics(FLEET)
        self.installer = DirectoryInstaller(self.home.releases, self.home.current, self.home.installer)
        self.floors = DeviceFloors(self.home.state)
        self.root = self.repository.root_bytes()
        self.verifier = self.new_verifier()
        self.shelf = Shelf()
        self.line = Line()
        self.reporter = Reporter(self.topics, DEVICE, self.device_signer, self.verifier.clock)
        self.refused: list[tuple[ErrorCode, str]] = []
        self.fetcher = Fetcher(
            self.home.staging,
            self.settings,
            DEVICE,
            lambda: [self.content_key],
            self.verifier,
            self.shelf,
            self.reporter,
            lambda code, detail: self.refused.append((code, detail)),
            Random(1),
            self.installer.streams,
        )
        self._seq = 0

    def new_verifier(self) -> Verifier:
        """A verifier on this device's disk, as after a restart; it has refreshed nothing yet."""
        return Verifier(TrustStore(self.home.trust, self.root), self.floors, self.receiver, self.clock)

    def receiver(self) -> Receiver:
        """Who the device is, and what it runs."""
        running = self.installer.running()
        return Receiver(FLEET, DEVICE, PRODUCT, HARDWARE, {COMPONENT: running.version} if running else {})

    def connect(self, session: int = 1) -> Line:
        """Give the reporter a line."""
        self.reporter.attach(cast(Any, self.line), session)
        return self.line

    def factory(self, version: str = "1.0.0", files: Mapping[str, bytes] | None = None) -> None:
        """What the device left the factory with."""
        place = self.path / f"factory-{version}"
        place.mkdir()
        for name, content in (files or {"app": version.encode()}).items():
            (place / name).write_bytes(content)
        self.installer.install_factory(place, version)

    def publish(
        self,
        version: str = "1.1.0",
        files: Mapping[str, bytes] | None = None,
        *,
        counter: int = 0,
        policy: Policy | None = None,
        inside: str = "",
        component: str = COMPONENT,
        must_pass_through: bool = False,
    ) -> SealedRelease:
        """Seal a release and list it; ``inside`` is what its manifest calls itself, where that is a lie."""
        artifact, chunks = seal_files(files or {"app": version.encode()}, component)
        manifest = Manifest(product=PRODUCT, version=inside or version, artifacts=[artifact])
        cek, sealed = seal_manifest(manifest.to_json())
        pieces = [sealed[at : at + PIECE_BYTES] for at in range(0, len(sealed), PIECE_BYTES)]
        names = [hashlib.sha256(piece).hexdigest() for piece in pieces]
        info = ReleaseInfo(
            product=PRODUCT,
            version=version,
            component=COMPONENT,
            hardware=[HARDWARE],
            must_pass_through=must_pass_through,
            counter=counter,
            space_bytes=1000,
            pieces=names,
            chunk_count=len(chunks),
            policy=policy or Policy(),
        )
        path = f"{PRODUCT}/{version}/manifest"
        target = TargetFile.from_data(path, sealed, ["sha256"])
        target.unrecognized_fields["custom"] = info.model_dump(mode="json")
        self.repository.releases.targets[path] = target
        ref = ReleaseRef(path=path, length=len(sealed), sha256=hashlib.sha256(sealed).hexdigest(), counter=counter)
        held = chunks | dict(zip(names, pieces, strict=True))
        self.shelf.chunks |= held
        return SealedRelease(ref, version, artifact, cek, held)

    def refresh(self) -> None:
        """Hand the repository as it is now to the verifier."""
        self.verifier.refresh(self.repository.files())

    def wrap(self, release: SealedRelease, device: str = DEVICE) -> str:
        """The release's content key for a device, as an offer carries it."""
        public = self.content_key.public_key()
        return base64.b64encode(wrap_key(release.cek, public, release=release.ref.sha256, device=device)).decode()

    def offer(self, release: SealedRelease, grant: Grant = Grant.DOWNLOAD, **changes: Any) -> Offer:
        """The next offer to this device."""
        values = self._directive(release) | {"device": DEVICE, "grant": grant, "key_wrap": self.wrap(release)}
        return Offer(**(values | changes))

    def announcement(self, release: SealedRelease, action: Action = Action.INSTALL, **changes: Any) -> Announcement:
        """The next announcement."""
        return Announcement(**(self._directive(release) | {"action": action} | changes))

    def signed(self, message: Offer | Announcement, signer: str = DIRECTOR) -> bytes:
        """As it stands on the broker."""
        kind = OFFER_TYPE if isinstance(message, Offer) else ANNOUNCEMENT_TYPE
        return sign(encode(message), kind, self.repository.signers[signer])

    def _directive(self, release: SealedRelease) -> dict[str, Any]:
        self._seq += 1
        now = self.clock.now()
        return {
            "fleet": FLEET, "issued": now, "rollout": "r", "expires": now + timedelta(days=1), "epoch": 1,
            "seq": self._seq, "release": release.ref,
        }  # fmt: skip


def seal_files(files: Mapping[str, bytes], component: str = COMPONENT) -> tuple[Artifact, dict[str, bytes]]:
    """A directory artifact of one chunk a file, and its ciphertexts by id."""
    rows, entries, chunks, offset = [], [], {}, 0
    for path, content in sorted(files.items()):
        codec, body = make_body(content, 3)
        cid, key, ciphertext = encrypt_body(b"d" * 32, codec, body)
        chunks[cid.hex()] = ciphertext
        digest = hashlib.sha256(content)
        plain, name, body_key = (base64.b64encode(data).decode() for data in (digest.digest(), cid, key))
        rows.append((plain, name, body_key, codec, len(content), len(body)))
        entries.append(FileEntry(path=path, mode=0o644, offset=offset, length=len(content), sha256=digest.hexdigest()))
        offset += len(content)
    stream = b"".join(content for _, content in sorted(files.items()))
    digest_hex = hashlib.sha256(stream).hexdigest()
    artifact = Artifact(
        component=component, kind="directory", length=len(stream), sha256=digest_hex, files=entries, chunks=rows
    )
    return artifact, chunks


async def until(condition: Callable[[], bool], timeout_s: float = 5) -> None:
    """Wait for a condition, not for long."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)


def open_below(place: Path) -> list[str]:
    """Files below a place that this process holds open, deleted ones included."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(descriptor.readlink()))
    return [path for path in found if path.startswith(str(place))]
