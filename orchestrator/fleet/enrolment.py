"""Admitting devices: their keys and requests in, certificates and the way to the fleet out. All of them or none."""

import asyncio
import base64
import binascii
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from securesystemslib.signer import SSlibKey
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.config import Home, Settings
from orchestrator.errors import ConflictError, NotFoundError, OperationError, UsageError
from orchestrator.fleet.authority import request_key
from orchestrator.fleet.issuer import Issuer, open_issuer
from orchestrator.model.device import Device
from orchestrator.storage import devices, dirty, events
from orchestrator.storage.database import Database
from protocol.clock import Clock
from protocol.enrolment import BrokerAddress, EnrolmentAnswer, EnrolmentAnswers, EnrolmentRequest, MirrorAddress
from protocol.topics import Kind


async def enrol(
    db: Database,
    home: Home,
    settings: Settings,
    clock: Clock,
    requests: Sequence[EnrolmentRequest],
    *,
    actor: str = "operator",
) -> EnrolmentAnswers:
    """Admit devices and issue their certificates. The same request again gets a new certificate.

    Raises:
        UsageError: A request is not what a device makes; names the device.
        ConflictError: A device is named twice, or is enrolled with other keys.
        OperationError: The CA or the root metadata is not there.
    """
    ids = [request.device for request in requests]
    twice = sorted({device for device in ids if ids.count(device) > 1}) if len(set(ids)) != len(ids) else []
    if twice:
        raise ConflictError(f"device {twice[0]}: two requests name it; give one of them")
    common = await asyncio.to_thread(_load_common, home, settings)
    now = clock.now()
    admitted = await asyncio.to_thread(lambda: [_admit(request, common, now) for request in requests])
    async with db.begin() as conn:
        for request, _, key, serial in admitted:
            await _keep(conn, request, key, serial, now, actor)
        await dirty.mark(conn, Kind.STATUS_DEVICE, ids, now)
        await dirty.mark(conn, Kind.STATUS_FLEET, [""], now)
    return EnrolmentAnswers(answers=[answer for _, answer, _, _ in admitted])


class _Common:
    """What every answer holds."""

    def __init__(self, settings: Settings, issuer: Issuer, ca: str, root: str) -> None:
        self.fleet = settings.fleet
        self.issuer = issuer
        self.life = timedelta(seconds=settings.certificates.life_s)
        self.ca = ca
        self.root = root
        self.brokers = device_addresses(settings)
        self.mirrors = [MirrorAddress(url=url, ca=settings.mirror.advertised_ca) for url in settings.mirror.advertised]


def _load_common(home: Home, settings: Settings) -> _Common:
    issuer = open_issuer(home, settings)
    root = newest_root(home)
    try:
        return _Common(settings, issuer, home.devices_ca.read_text(), root)
    except OSError as error:
        raise OperationError(f"{error.filename}: cannot be read: {error.strerror}") from error


def device_addresses(settings: Settings) -> list[BrokerAddress]:
    """Where devices reach the fleet's brokers, in the order in which they try them."""
    return [
        BrokerAddress(host=broker.advertised_host or broker.host, port=broker.device_port)
        for broker in settings.all_brokers
    ]


def newest_root(home: Home) -> str:
    """The newest root metadata, as text. Blocking.

    Raises:
        NotFoundError: There is none.
        OperationError: It cannot be read.
    """
    roots = {int(p.name.split(".")[0]): p for p in home.trust.glob("*.root.json") if p.name.split(".")[0].isdecimal()}
    if not roots:
        raise NotFoundError(f"{home.trust}: holds no root metadata; restore it from a backup")
    try:
        return roots[max(roots)].read_text()
    except OSError as error:
        raise OperationError(f"{error.filename}: cannot be read: {error.strerror}") from error


def check_content_key(text: str) -> None:
    """Raises ValueError unless it is an X25519 public key in base64."""
    try:
        X25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError("content key: not base64") from error


def report_key_of(key: EllipticCurvePublicKey) -> dict[str, Any]:
    """A report key as it is stored: securesystemslib ``Key.to_dict()`` plus ``keyid``."""
    public = SSlibKey.from_crypto(key)
    return {**public.to_dict(), "keyid": public.keyid}


def _admit(
    request: EnrolmentRequest, common: _Common, now: datetime
) -> tuple[EnrolmentRequest, EnrolmentAnswer, EllipticCurvePublicKey, str]:
    try:
        check_content_key(request.content_key)
        key = request_key(request.csr)
    except ValueError as error:
        raise UsageError(
            f"device {request.device}: its content key is not an X25519 key; make a new request on the device"
        ) from error
    except UsageError as error:
        raise UsageError(f"device {request.device}: {error}") from error
    issued = common.issuer.issue(request.csr, request.device, common.life, now)
    answer = EnrolmentAnswer(
        fleet=common.fleet,
        device=request.device,
        certificate=issued.certificate,
        ca=common.ca,
        root=common.root,
        brokers=common.brokers,
        mirrors=common.mirrors,
    )
    return request, answer, key, issued.serial


async def _keep(
    conn: AsyncConnection,
    request: EnrolmentRequest,
    key: EllipticCurvePublicKey,
    serial: str,
    now: datetime,
    actor: str,
) -> None:
    report_key = report_key_of(key)
    known = await devices.get(conn, request.device)
    if known is not None and known.state == "enrolled":
        stored, content_key = (await devices.keys(conn, [request.device]))[request.device]
        if (stored.get("keyid"), content_key) != (report_key["keyid"], request.content_key):
            raise ConflictError(
                f"device {request.device}: is enrolled with other keys; a second device must have another id"
            )
        await devices.set_certificate(conn, request.device, serial)
        await events.add_order(
            conn, "certificate_issued", "certificate issued again", now, actor=actor, device=request.device
        )
        return
    if known is not None and known.state == "revoked":
        raise ConflictError(f"device {request.device}: was revoked; a new device must have another id")
    device = Device(
        id=request.device,
        product=request.product,
        hardware=request.hardware,
        labels=dict(request.labels),
        certificate_serial=serial,
        enrolled_at=now,
    )
    await devices.insert(conn, device, report_key=report_key, content_key=request.content_key)
    await events.add_order(
        conn,
        "device_enrolled",
        f"{request.product} on {request.hardware}",
        now,
        actor=actor,
        device=request.device,
    )
