"""What only thieves of the release keys can make: releases that no publisher would, listed and signed all the same."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuf.api.metadata import TargetFile

from device_client import identity
from orchestrator.publisher.packing import pack
from protocol.chunks import PIECE_BYTES
from protocol.directives import ReleaseRef
from protocol.encryption import seal_manifest, wrap_key
from protocol.envelopes import b64
from protocol.manifest import ReleaseInfo
from protocol.topics import Kind
from tests.attacks.arena import Arena, Victim
from tests.integration.small_fleet import HARDWARE, PRODUCT, make_tree, until

ROLE = f"releases-{PRODUCT}"


@dataclass(frozen=True)
class Payload:
    """A packed artifact as JSON, which may be spoiled before it is sealed; ciphertext by chunk id, in stream order."""

    artifact: dict[str, Any]
    chunks: dict[str, bytes]


@dataclass(frozen=True)
class Plan:
    """A release to be forged; ``info`` replaces fields of what is judged before any key is used."""

    version: str
    artifacts: Sequence[Mapping[str, Any]]
    chunks: Mapping[str, bytes] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Forged:
    """A release that is listed now, and the key that opens its manifest."""

    ref: ReleaseRef
    cek: bytes

    def wrap(self, victim: Victim) -> str:
        """The key for the victim, as the director would wrap it."""
        public = identity.load_content_key(victim.home).public_key()
        return b64(wrap_key(self.cek, public, release=self.ref.sha256, device=victim.name))


def payload(ground: Arena, version: str, size_bytes: int = 1000, component: str = "app") -> Payload:
    """A new tree, packed under a secret of its own: its chunks are nobody else's."""
    chunks: dict[str, bytes] = {}
    made = pack(_tree(ground, version, size_bytes), component, os.urandom(32), chunks.__setitem__)
    return Payload(made.artifact.model_dump(mode="json"), chunks)


async def forge(ground: Arena, victim: Victim, *plans: Plan) -> list[Forged]:
    """List releases by stolen offline keys and put their chunks on the broker; returns when the victim believes it."""
    forged = []
    targets = {}
    for plan in plans:
        manifest = {"v": 1, "product": PRODUCT, "version": plan.version, "artifacts": list(plan.artifacts)}
        cek, sealed = seal_manifest(json.dumps(manifest).encode())
        pieces = [sealed[at : at + PIECE_BYTES] for at in range(0, len(sealed), PIECE_BYTES)]
        named = {hashlib.sha256(piece).hexdigest(): piece for piece in pieces}
        digest, path = hashlib.sha256(sealed).hexdigest(), f"{PRODUCT}/{plan.version}/manifest"
        fields: dict[str, Any] = {
            "product": PRODUCT, "version": plan.version, "component": "app", "hardware": [HARDWARE], "counter": 5,
            "space_bytes": 0, "pieces": list(named), "chunk_count": len(plan.chunks),
        }  # fmt: skip
        info = ReleaseInfo.model_validate(fields | dict(plan.info))
        target = TargetFile(len(sealed), {"sha256": digest}, path)
        target.unrecognized_fields["custom"] = info.model_dump(mode="json")
        targets[path] = target
        ref = ReleaseRef(path=path, length=len(sealed), sha256=digest, counter=info.counter)
        forged.append(Forged(ref, cek))
        for cid, data in {**named, **plan.chunks}.items():
            await ground.put(Kind.CHUNK, data, cid=cid)
    await list_targets(ground, victim, lambda listed: listed.update(targets))
    return forged


async def list_targets(ground: Arena, victim: Victim, change: Any) -> None:
    """Change what the stolen release keys list; returns when the victim believes it."""
    version = 0

    def sign(signed: Any) -> None:
        nonlocal version
        signed.version += 1
        version = signed.version
        change(signed.targets)

    await ground.put_trust(ground.follow({ROLE: ground.resign(ROLE, sign, ground.offline(ROLE))}))
    await until(lambda: victim.believes[ROLE] == version, f"{victim.name} believes the changed list")


def _tree(ground: Arena, version: str, size_bytes: int) -> Path:
    place = ground.fleet.place / f"forged-{os.urandom(4).hex()}"
    place.mkdir()
    return make_tree(place, version, size_bytes)
