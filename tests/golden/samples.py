"""One example of each wire format in its present version, and the keys that they were made with.

Nothing here is a secret: the keys exist for these files alone.
"""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import BaseModel
from securesystemslib.signer import CryptoSigner

from protocol.chunks import ChunkRef, Codec, DeltaRef
from protocol.directives import Action, Announcement, Grant, Heard, Offer, ReleaseRef
from protocol.encryption import encrypt_body
from protocol.enrolment import (
    BrokerAddress,
    ClaimAnswer,
    ClaimFolder,
    ClaimRequest,
    ConnectionTarget,
    EnrolmentAnswer,
    EnrolmentAnswers,
    EnrolmentRequest,
    IssuedCertificate,
    MirrorAddress,
)
from protocol.envelopes import b64
from protocol.errors import ErrorCode
from protocol.manifest import Artifact, DeltaSet, FileEntry, LinkEntry, Manifest, Policy, ReleaseInfo
from protocol.reports import Inventory, Presence, Progress, Readiness, Reason, Refusal, Renewal, StateReport, Want
from protocol.states import Phase, State
from protocol.status_messages import (
    DeviceStatus,
    FleetStatus,
    RolloutStatus,
    RuleFigure,
    StageStatus,
    StatusEvent,
    Sync,
)
from protocol.windows import PolicyWindow

FOLDER = Path(__file__).parent / "v1"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = datetime(2026, 11, 24, 12, tzinfo=UTC)
DIRECTOR = CryptoSigner(Ed25519PrivateKey.from_private_bytes(b"golden director key, no secret!!"))
CONTENT_KEY = X25519PrivateKey.from_private_bytes(b"golden content key, no secret!!!")
PUBLISHER_SECRET = b"golden publisher key, no secret!"

PLAIN = b"#!/bin/sh\nexit 0\n"
PLAIN_SHA256 = hashlib.sha256(PLAIN).hexdigest()
CID, CHUNK_KEY, CIPHERTEXT = encrypt_body(PUBLISHER_SECRET, Codec.RAW, PLAIN)
CHUNK = ChunkRef(0, len(PLAIN), hashlib.sha256(PLAIN).digest(), CID, CHUNK_KEY, Codec.RAW, len(PLAIN))
MANIFEST = Manifest(
    product="gateway",
    version="1.1.0",
    artifacts=[
        Artifact(
            component="app",
            kind="directory",
            length=len(PLAIN),
            sha256=PLAIN_SHA256,
            files=[FileEntry(path="bin/health", mode=0o755, offset=0, length=len(PLAIN), sha256=PLAIN_SHA256)],
            links=[LinkEntry(path="health", target="bin/health")],
            chunks=[(b64(CHUNK.sha256), b64(CID), b64(CHUNK_KEY), Codec.RAW, len(PLAIN), len(PLAIN))],
        )
    ],
    policy=Policy(min_battery_percent=40, require_way_back=True),
)
OLD_STREAM = b"#!/bin/sh\n# version 1.0.0\nexit 0\n"
DELTA_BODY = bytes.fromhex("28b52ffd201175000040236578697420300a0100a45042")
"""zstd level 19 of ``PLAIN`` with ``OLD_STREAM`` as its dictionary; spelled out, since libraries differ in bytes."""
DELTA_CID, DELTA_KEY, DELTA_CIPHERTEXT = encrypt_body(PUBLISHER_SECRET, Codec.DELTA, DELTA_BODY)
DELTA = DeltaRef(DELTA_CID, DELTA_KEY, len(DELTA_BODY), 0, len(OLD_STREAM), hashlib.sha256(OLD_STREAM).digest())
DELTA_ROW = (0, b64(DELTA_CID), b64(DELTA_KEY), len(DELTA_BODY), 0, len(OLD_STREAM), b64(DELTA.base_sha256))
DELTA_MANIFEST = MANIFEST.model_copy(
    update={
        "artifacts": [
            MANIFEST.artifacts[0].model_copy(
                update={
                    "deltas": [
                        DeltaSet(
                            sha256=hashlib.sha256(OLD_STREAM).hexdigest(), length=len(OLD_STREAM), rows=[DELTA_ROW]
                        )
                    ]
                }
            )
        ]
    }
)
RELEASE = ReleaseRef(path="gateway/1.1.0/manifest", length=4096, sha256="1f" * 32, counter=2)
REASON = Reason(gate="power", code="battery_low", detail="12 %, needs 40 %", retry_after_s=60)
PEM = "-----BEGIN CERTIFICATE-----\nZ29sZGVu\n-----END CERTIFICATE-----\n"

_DOWN = {"fleet": "north", "issued": NOON, "rollout": "r-1", "expires": LATER, "epoch": 1, "release": RELEASE}
_UP = {"fleet": "north", "issued": NOON, "device": "dev1", "session": 3}

MESSAGES: dict[str, BaseModel] = {
    "announcement": Announcement.model_validate(
        {**_DOWN, "seq": 7, "action": Action.INSTALL, "policy": Policy(require_approval=True)}
    ),
    "announcement-windows": Announcement.model_validate(
        {
            **_DOWN,
            "seq": 11,
            "action": Action.INSTALL,
            "policy": Policy(
                windows=(
                    PolicyWindow(days=("mon", "tue", "wed", "thu", "fri"), start="22:30", minutes=360),
                    PolicyWindow(days=("sun",), start="00:00", minutes=1440),
                )
            ),
        }
    ),
    "offer": Offer.model_validate(
        {
            **_DOWN,
            "seq": 8,
            "device": "dev1",
            "grant": Grant.ACTIVATE,
            "nonce": "nonce-of-dev1",
            "grant_s": 900,
            "key_wrap": b64(b"w" * 80),
            "heard": Heard(nonce="nonce-of-dev1"),
        }
    ),
    "announcement-offline": Announcement.model_validate(
        {**_DOWN, "seq": 9, "action": Action.INSTALL, "offline_until": LATER}
    ),
    "offer-offline": Offer.model_validate(
        {
            **_DOWN,
            "seq": 10,
            "device": "dev1",
            "grant": Grant.DOWNLOAD,
            "key_wrap": b64(b"w" * 80),
            "offline_until": LATER,
        }
    ),
    "offer-superseded": Offer.model_validate(
        {**_DOWN, "seq": 12, "device": "dev1", "grant": Grant.CLOSED, "reason": "superseded by rollout r-2"}
    ),
    "inventory": Inventory.model_validate(
        {
            **_UP,
            "seq": 1,
            "product": "gateway",
            "hardware": "rev-a",
            "components": {"app": "1.0.0"},
            "labels": {"site": "oslo"},
            "capabilities": ["directory"],
            "agent": "0.1.0",
        }
    ),
    "inventory-refusing": Inventory.model_validate(
        {
            **_UP,
            "seq": 4,
            "product": "gateway",
            "hardware": "rev-a",
            "agent": "0.1.0",
            "stale_since": NOON,
            "refusals": [Refusal(code=ErrorCode.FREEZE, detail="timestamp expired", count=2, last=NOON)],
        }
    ),
    "inventory-instance": Inventory.model_validate(
        {
            **_UP,
            "seq": 3,
            "product": "gateway",
            "hardware": "rev-a",
            "agent": "0.1.0",
            "instance": "0123456789abcdef",
            "boot": "3f0e8a52-0000-4000-8000-000000000000",
        }
    ),
    "readiness": Readiness.model_validate(
        {
            **_UP,
            "seq": 2,
            "rollout": "r-1",
            "nonce": "nonce-of-dev1",
            "phase": Phase.DOWNLOAD,
            "ready": False,
            "reasons": [REASON],
        }
    ),
    "state": StateReport.model_validate(
        {
            **_UP,
            "seq": 3,
            "rollout": "r-1",
            "attempt": 1,
            "release": RELEASE,
            "nonce": "nonce-of-dev1",
            "state": State.ROLLED_BACK,
            "code": ErrorCode.HEALTH,
            "detail": "health check ended with 1",
            "phase": Phase.ACTIVATE,
            "from_version": "1.0.0",
            "running_version": "1.0.0",
            "resumed": True,
            "bytes_fetched": 65_536,
            "log": "no route\n",
        }
    ),
    "state-offline": StateReport.model_validate(
        {
            **_UP,
            "seq": 5,
            "rollout": "r-1",
            "attempt": 1,
            "nonce": "nonce-of-dev1",
            "state": State.SUCCEEDED,
            "from_version": "1.0.0",
            "running_version": "1.1.0",
            "offline_until": LATER,
        }
    ),
    "presence": Presence(session=3, online=False),
    "progress": Progress(rollout="r-1", state=State.DOWNLOADING, percent=12.5, bytes_fetched=1, bytes_total=8, at=NOON),
    "want": Want(rollout="r-1", cids=[CID.hex()]),
    "release-info": ReleaseInfo(
        product="gateway",
        version="1.1.0",
        component="app",
        hardware=["rev-a"],
        requires={"os": "5"},
        counter=2,
        space_bytes=100_000,
        pieces=["2e" * 32],
        chunk_count=1,
    ),
    "release-info-windows": ReleaseInfo(
        product="gateway",
        version="1.2.0",
        component="app",
        hardware=["rev-a"],
        must_pass_through=True,
        counter=2,
        space_bytes=100_000,
        pieces=["2e" * 32],
        chunk_count=1,
        policy=Policy(windows=(PolicyWindow(days=("sat",), start="02:00", minutes=90),)),
    ),
    "enrolment-request": EnrolmentRequest(
        device="dev1",
        product="gateway",
        hardware="rev-a",
        labels={"site": "oslo"},
        csr=PEM,
        content_key=b64(b"c" * 32),
    ),
    "enrolment-answers": EnrolmentAnswers(
        answers=[
            EnrolmentAnswer(
                fleet="north",
                device="dev1",
                certificate=PEM,
                ca=PEM,
                root="{}",
                brokers=[BrokerAddress(host="127.0.0.1", port=8883)],
            )
        ]
    ),
    "claim-request": ClaimRequest(
        fleet="north",
        claim="claim.line-1",
        serial="SN:1",
        device="dev1",
        product="gateway",
        hardware="rev-a",
        csr=PEM,
        content_key=b64(b"c" * 32),
        nonce="nonce-of-dev1",
        issued=NOON,
    ),
    "claim-answer": ClaimAnswer(
        fleet="north",
        request="1f" * 32,
        nonce="nonce-of-dev1",
        status="issued",
        device="dev1",
        certificate=PEM,
    ),
    "claim-folder": ClaimFolder(
        fleet="north",
        claim="claim.line-1",
        enrol=[BrokerAddress(host="127.0.0.1", port=8885)],
        brokers=[BrokerAddress(host="127.0.0.1", port=8883)],
    ),
    "connection-target": ConnectionTarget(
        fleet="north", version=2, ca=PEM, brokers=[BrokerAddress(host="127.0.0.1", port=8883)]
    ),
    "connection-target-mirrors": ConnectionTarget(
        fleet="north",
        version=3,
        ca=PEM,
        brokers=[BrokerAddress(host="127.0.0.1", port=8883)],
        mirrors=[
            MirrorAddress(url="https://mirror.example/ota"),
            MirrorAddress(url="https://cdn.example", ca="system"),
        ],
    ),
    "issued-certificate": IssuedCertificate(fleet="north", device="dev1", request="1f" * 32, certificate=PEM),
    "renewal": Renewal.model_validate({**_UP, "seq": 4, "csr": PEM, "content_key": b64(b"d" * 32)}),
    "status-fleet": FleetStatus(
        at=NOON, fleet="north", devices=2, online=1, versions={"1.0.0": 2}, rollouts={"r-1": "running"}
    ),
    "status-rollout": RolloutStatus(
        at=NOON,
        id="r-1",
        release="gateway/1.1.0",
        state="halted",
        reason="failures 1 of 1",
        members=2,
        rolled_back=1,
        untouched=1,
        stages=[
            StageStatus(
                name="canary",
                state="open",
                members=1,
                offered=1,
                counts={"rolled_back": 1},
                figures=[
                    RuleFigure(rule="halt", numerator=1, denominator=1, sample=1, limit=0.5, met=True, text="1 of 1")
                ],
            )
        ],
    ),
    "status-device": DeviceStatus(
        at=NOON, id="dev1", online=True, components={"app": "1.0.0"}, rollout="r-1", state="waiting", ready=False
    ),
    "status-fleet-concerns": FleetStatus(
        at=NOON, fleet="north", devices=4, online=1, revoked=1, silent=1, stale=1, duplicate=1
    ),
    "status-rollout-excluded": RolloutStatus(
        at=NOON, id="r-1", release="gateway/1.1.0", state="completed", members=2, succeeded=1, excluded=1
    ),
    "status-device-silent": DeviceStatus(
        at=NOON,
        id="dev1",
        online=True,
        membership="enrolled",
        silent_since=NOON,
        stale_since=NOON,
        duplicate_since=NOON,
    ),
    "status-event": StatusEvent(at=NOON, kind="rollout_halted", text="r-1 halted: failures 1 of 1", rollout="r-1"),
    "status-sync": Sync(at=NOON, database="db-1", serial=7, ingest="g-1"),
}
