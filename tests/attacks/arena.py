"""Where attacks are tried: a running fleet, an attacker who holds the broker, and a new victim for each attack.

The attacker publishes with the orchestrator's own certificate, so no access list stands in the way: what refuses is
the device. Which keys beyond that were stolen is each attack's own matter: the online ones lie in ``home.signer``, the
offline ones in ``home.publisher``.
"""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile
from tuf.api.serialization.json import JSONSerializer

from device_client import identity
from device_client.config import DeviceHome, load
from device_client.identity_files import IdentityFiles
from device_client.service import Agent
from orchestrator.delivery.broker_access import service_connection
from orchestrator.package import CEK, PackageReader
from orchestrator.publisher.workspace import Workspace
from orchestrator.signer.keys import load_signer, load_x25519
from protocol.clock import Clock, SystemClock
from protocol.directives import ANNOUNCEMENT_TYPE, OFFER_TYPE, Action, Announcement, Grant, Offer, ReleaseRef
from protocol.encryption import unwrap_key, wrap_key
from protocol.envelopes import b64, encode, sign
from protocol.errors import ErrorCode
from protocol.mqtt.connection import Session, connect
from protocol.states import Phase, State
from protocol.topics import DELIVERY, Kind, Topics
from protocol.trust.bundle import pack_bundle
from tests.integration.small_fleet import (
    FLEET,
    PRODUCT,
    SmallFleet,
    installed,
    make_package,
    make_tree,
    small_fleet,
    until,
)

SEEN_S = 20.0
_COMPACT = JSONSerializer(compact=True)
_numbers = itertools.count(1)


def whole(instant: datetime) -> datetime:
    """Without what TUF does not write."""
    return instant.replace(microsecond=0)


@dataclass
class Victim:
    """A device that runs 1.0.0, with its agent in this process."""

    name: str
    home: DeviceHome
    agent: Agent
    task: asyncio.Task[None]

    async def stop(self) -> None:
        """Cut its power."""
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    @contextlib.asynccontextmanager
    async def switched_off(self, clock: Clock | None = None) -> AsyncIterator[None]:
        """Without power for the length of a block; then a new agent finds what is on the disk."""
        await self.stop()
        yield
        self.agent = Agent(*load(self.home.path), clock or SystemClock())
        self.task = asyncio.create_task(self.agent.run())

    async def believing(self, role: str, version: int) -> None:
        """Wait until it holds a version of a role for true."""
        await until(lambda: self.believes.get(role) == version, f"{self.name} believes {role} {version}")

    def refused(self, code: ErrorCode, times: int = 1) -> bool:
        """Whether it refused something by this code."""
        return self.agent._refusals.counts[code.value] >= times

    @property
    def outcome(self) -> ErrorCode | None:
        """The code of its open update, where there is one."""
        update = self.agent.runner.update
        return update.code if update else None

    @property
    def believes(self) -> dict[str, int]:
        """Version by role of the metadata that it holds for true."""
        return {name: floor.version for name, floor in self.agent._verifier.floors.roles.items()}

    def stands(self, state: State, phase: Phase | None = None) -> bool:
        """Whether its open update has come to a place."""
        update = self.agent.runner.update
        return update is not None and update.state is state and (phase is None or update.phase is phase)


@dataclass
class Arena:
    """The fleet with releases 1.1.0 (security counter 5) and 1.0.5 (counter 1), and the attacker's session."""

    fleet: SmallFleet
    session: Session
    topics: Topics = field(default_factory=lambda: Topics(FLEET))
    originals: dict[str, bytes] = field(default_factory=dict)
    factory: Path = Path()
    _left: set[str] = field(default_factory=set)

    # Stolen keys -----------------------------------------------------------------------------------------------------

    def online(self, name: str) -> CryptoSigner:
        """``director`` or ``timestamp``, from the orchestrator's host."""
        return load_signer(self.fleet.home.signer / f"{name}.key")

    def offline(self, role: str, number: int = 1) -> CryptoSigner:
        """A key from the publisher's folder."""
        return load_signer(Workspace(self.fleet.home.publisher).keys / f"{role}-{number}.key")

    # Trust topics ----------------------------------------------------------------------------------------------------

    def metadata(self) -> dict[str, bytes]:
        """The newest of each role as it is published, by role name."""
        found: dict[str, tuple[int, bytes]] = {}
        for path in self.fleet.home.trust.glob("[0-9]*.json"):
            number, _, rest = path.name.partition(".")
            role = rest.removesuffix(".json")
            if int(number) > found.get(role, (0, b""))[0]:
                found[role] = int(number), path.read_bytes()
        newest = {role: data for role, (_, data) in found.items()}
        return {**newest, "timestamp": (self.fleet.home.trust / "timestamp.json").read_bytes()}

    def bundle(self, files: Mapping[str, bytes]) -> bytes:
        """A trust bundle of roles; each file is named by the version that it says."""
        named = {
            f"{json.loads(data)['signed']['version']}.{role}.json": data
            for role, data in files.items()
            if role != "timestamp"
        }
        return pack_bundle(named)

    async def put_trust(self, files: Mapping[str, bytes]) -> None:
        """Publish a whole set: the bundle, then the timestamp."""
        await self.put(Kind.TRUST_BUNDLE, self.bundle(files))
        await self.put(Kind.TRUST_TIMESTAMP, files["timestamp"])

    def resign(self, role: str, change: Callable[[Any], object], *signers: CryptoSigner) -> bytes:
        """A role's metadata after ``change``, with new signatures only."""
        metadata: Metadata[Any] = Metadata.from_bytes(self.metadata()[role])
        change(metadata.signed)
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)
        return metadata.to_bytes(_COMPACT)

    def follow(self, changed: Mapping[str, bytes]) -> dict[str, bytes]:
        """The published set with some roles replaced, and a snapshot and timestamp, by stolen keys, that name them."""
        files = {**self.metadata(), **changed}
        names = {role: json.loads(data)["signed"]["version"] for role, data in changed.items() if role != "root"}

        def snapshot(signed: Any) -> None:
            signed.version += 1
            for role, version in names.items():
                signed.meta[f"{role}.json"] = MetaFile(version)

        if "snapshot" not in changed:
            files["snapshot"] = self.resign("snapshot", snapshot, self.offline("snapshot"))
        version = json.loads(files["snapshot"])["signed"]["version"]

        def timestamp(signed: Any) -> None:
            signed.version += 1
            signed.snapshot_meta = MetaFile(version)

        if "timestamp" not in changed:
            files["timestamp"] = self.resign("timestamp", timestamp, self.online("timestamp"))
        return files

    # Directives ------------------------------------------------------------------------------------------------------

    def ref(self, version: str = "1.1.0", **changes: Any) -> ReleaseRef:
        """A release as an order names it."""
        targets = json.loads(self.metadata()[f"releases-{PRODUCT}"])["signed"]["targets"]
        path = f"{PRODUCT}/{version}/manifest"
        target = targets[path]
        values = {
            "path": path,
            "length": target["length"],
            "sha256": target["hashes"]["sha256"],
            "counter": target["custom"]["counter"],
        }
        return ReleaseRef(**(values | changes))

    def announcement(
        self, rollout: str, ref: ReleaseRef, signer: CryptoSigner | None = None, *, envelope: str = ANNOUNCEMENT_TYPE,
        **fields: Any,
    ) -> bytes:  # fmt: skip
        """An announcement in its envelope; signed by the stolen director key unless another is named."""
        now = whole(datetime.now(UTC))
        values = {
            "fleet": FLEET, "rollout": rollout, "issued": now, "expires": now + timedelta(hours=1), "epoch": 1,
            "seq": 500_000 + next(_numbers), "release": ref, "action": Action.INSTALL,
        }  # fmt: skip
        message = Announcement(**(values | fields))
        return sign(encode(message), envelope, signer or self.online("director"))

    def offer(
        self, rollout: str, victim: Victim, ref: ReleaseRef, signer: CryptoSigner | None = None, **fields: Any
    ) -> bytes:
        """An offer in its envelope, with the content key of 1.1.0 wrapped for the victim."""
        now = whole(datetime.now(UTC))
        values = {
            "fleet": FLEET, "rollout": rollout, "device": victim.name, "issued": now,
            "expires": now + timedelta(hours=1), "epoch": 1, "seq": 500_000 + next(_numbers), "release": ref,
            "grant": Grant.DOWNLOAD, "key_wrap": self.wrap(victim),
        }  # fmt: skip
        message = Offer(**(values | fields))
        return sign(encode(message), OFFER_TYPE, signer or self.online("director"))

    def wrap(self, victim: Victim, version: str = "1.1.0") -> str:
        """The content key of a release for a device: who has the orchestrator's host can make it."""
        digest = self.ref(version).sha256
        with PackageReader(self.fleet.home.path.parent / f"{version}.package") as reader:
            wrapped = reader.read(CEK)
        cek = unwrap_key(wrapped, load_x25519(self.fleet.home.signer / "package.key"), release=digest, device="package")
        public = identity.load_content_key(victim.home).public_key()
        return b64(wrap_key(cek, public, release=digest, device=victim.name))

    async def order(self, victim: Victim, rollout: str, ref: ReleaseRef, **fields: Any) -> None:
        """Announce a release and offer it to the victim, both by the stolen director."""
        await self.put(Kind.ANNOUNCE, self.announcement(rollout, ref), rollout=rollout)
        await self.put(Kind.OFFER, self.offer(rollout, victim, ref, **fields), device=victim.name, rollout=rollout)

    async def roll_out(self, rollout: str, victim: Victim, version: str = "1.1.0", **plan: Any) -> None:
        """Start a real rollout of the orchestrator's whose only member is the victim."""
        members = {"selector": f"id={victim.name}"}
        await self.fleet.roll_out(rollout, version, **({"members": members} | plan))

    # The broker ------------------------------------------------------------------------------------------------------

    async def put(self, kind: Kind, payload: bytes, **values: str) -> None:
        """Publish, retained; what the topics of trust and orders held before is put back after the test."""
        topic = self.topics.build(kind, **values)
        if kind in (Kind.TRUST_ROOT, Kind.ANNOUNCE, Kind.OFFER):
            self._left.add(topic)
        await self.session.publish(topic, payload, qos=1, retain=True)

    async def restore(self) -> None:
        """Give the trust topics back what the fleet published, and leave no order behind."""
        while self._left:
            await self.session.publish(self._left.pop(), b"", qos=1, retain=True)
        files = self.metadata()
        await self.put(Kind.TRUST_BUNDLE, self.bundle(files))
        await self.put(Kind.TRUST_TIMESTAMP, files["timestamp"])

    # Victims ---------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def victim(
        self, clock: Clock | None = None, through: int | None = None, *, only: bool = False, **sections: dict[str, Any]
    ) -> AsyncIterator[Victim]:
        """A new device that believes the fleet's metadata and runs 1.0.0; its agent ends with the block.

        Args:
            through: A port on loopback that it tries before the broker's own.
            only: It knows no other way.
        """
        name = f"victim-{next(_numbers)}"
        await self.fleet.enrol([name], self.factory, **sections)
        home, settings = load(self.fleet.devices[name].path)
        if through:
            file = IdentityFiles(home).enrolment
            known = identity.load_enrolment(home)
            first = known.brokers[0].model_copy(update={"port": through})
            file.write_text(
                known.model_copy(update={"brokers": [first, *([] if only else known.brokers)]}).model_dump_json()
            )
        home.create()
        agent = Agent(home, settings, clock or SystemClock())
        task = asyncio.create_task(agent.run())
        victim = Victim(name, home, agent, task)
        try:
            await until(lambda: not agent._verifier.stale, f"{name} believes the fleet's metadata")
            yield victim
        finally:
            await victim.stop()
            await self.restore()

    async def explained(self, victim: Victim) -> str:
        """What ``flagship device explain`` says."""
        answer = await self.fleet.call("get", f"/devices/{victim.name}/explain")
        return "\n".join(answer["sentences"])

    async def seen(self, victim: Victim, code: ErrorCode | str) -> str:
        """Wait until the operator sees a word in ``flagship device explain``; what it says then."""
        word = str(code.value if isinstance(code, ErrorCode) else code)
        try:
            async with asyncio.timeout(SEEN_S):
                while word not in (said := await self.explained(victim)):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"the operator never saw {word}; explain says: {said}") from None
        return said

    async def fails(self, victim: Victim, code: ErrorCode, *, runs: str = "1.0.0") -> None:
        """The attack has failed: refused by name, the operator sees it, and the victim runs what it ran."""
        await until(lambda: victim.refused(code) or victim.outcome is code, f"{victim.name} answers {code}")
        await self.seen(victim, code)
        assert installed(victim.home) == runs


@contextlib.asynccontextmanager
async def arena(codesign: tuple[str, ...] = (), **environment: str) -> AsyncIterator[Arena]:
    """A fleet for a module's attacks: starts in a few seconds, and is shared."""
    async with small_fleet(*codesign, **environment) as fleet:
        for version, counter in (("1.1.0", 5), ("1.0.5", 1)):
            tree = await asyncio.to_thread(make_tree, fleet.place, version, 200_000)
            await fleet.publish(await asyncio.to_thread(make_package, fleet.home, tree, version, counter))
        target = await asyncio.to_thread(service_connection, fleet.home, fleet.settings, DELIVERY, purpose="attacker")
        async with connect(target) as session:
            factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0", 1000)
            yield Arena(fleet, session, factory=factory)
