"""Requests under a claim certificate: is this one authentic, whose is it, what does the inventory say of it.

size -> envelope -> payload -> CSR -> signature by the CSR's key -> scope -> claim -> inventory -> former keys
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from securesystemslib.signer import Key, SSlibKey
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import UsageError
from orchestrator.fleet.authority import request_key
from orchestrator.fleet.enrolment import check_content_key
from orchestrator.model.device import DeviceState
from orchestrator.storage import claims, devices, renewals
from orchestrator.storage.claims import Claim, Enrolment, Expected
from protocol.enrolment import ENROLMENT_TYPE, ClaimRequest
from protocol.envelopes import decode, parse, verify_with
from protocol.errors import EnvelopeError, ErrorCode
from protocol.identifiers import check_id
from protocol.topics import RULES, Kind


@dataclass(frozen=True, slots=True)
class Asked:
    """An authentic request: whoever sent it holds its keys.

    Attributes:
        digest: sha256 hex of the payload.
        envelope: For the former report key's signature, which needs the inventory.
    """

    request: ClaimRequest
    digest: str
    key: EllipticCurvePublicKey
    pae: bytes
    signatures: Mapping[str, Any]

    @property
    def keyid(self) -> str:
        """Of the new report key."""
        return SSlibKey.from_crypto(self.key).keyid


class Refused(Exception):  # noqa: N818 - an answer, not a mistake
    """Why a request is not met; told to the asker."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


def read_request(raw: bytes, fleet: str, claim: str) -> Asked:
    """Check the form of a request and that its sender holds the key that it names.

    The key stands in the payload, so the payload must be read before its signature can be checked; it is small.

    Raises:
        EnvelopeError: E_OVERSIZE, E_FORMAT, E_TYPE, E_SIGNATURE or E_SCOPE.
    """
    envelope = parse(raw, RULES[Kind.ENROL_REQUEST].max_bytes, ENROLMENT_TYPE)
    request = decode(envelope.payload, ClaimRequest)
    try:
        key = request_key(request.csr)
        check_content_key(request.content_key)
    except (UsageError, ValueError) as error:
        raise EnvelopeError(ErrorCode.FORMAT, str(error)) from error
    verify_with(SSlibKey.from_crypto(key))(envelope.pae(), envelope.signatures)
    if (request.fleet, request.claim) != (fleet, claim):
        raise EnvelopeError(ErrorCode.SCOPE, f"request under {request.claim} in {request.fleet}: came under {claim}")
    digest = hashlib.sha256(envelope.payload).hexdigest()
    return Asked(request, digest, key, envelope.pae(), envelope.signatures)


async def open_claim(conn: AsyncConnection, name: str, now: datetime) -> Claim:
    """A claim under which devices may come now; raises Refused where it is none."""
    claim = await claims.get(conn, name)
    if claim is None or claim.state != claims.OPEN:
        raise Refused("claim", f"{name}: is not open here")
    if claim.expires <= now:
        raise Refused("claim", f"{name}: expired {claim.expires:%Y-%m-%d}")
    return claim


async def subject_of(conn: AsyncConnection, claim: Claim, request: ClaimRequest) -> Expected:
    """What the inventory says of the device that asks; raises Refused where it says nothing."""
    found = await claims.expected(conn, request.serial)
    if found is not None and found.claim == claim.name:
        return found
    if found is not None and request.device == found.device:
        return found  # it comes back under a later claim; its former key decides
    known = await devices.get(conn, request.device) if request.device else None
    if known is not None:
        return Expected(request.serial, claim.name, known.id, known.product, known.hardware, known.labels)
    if found is not None or claim.any_product is None or claim.any_hardware is None:
        raise Refused("serial", f"serial {request.serial}: not listed under {claim.name}")
    try:
        device = check_id(request.serial, "device id")
    except ValueError as error:
        raise Refused("serial", f"serial {request.serial}: cannot be a device's id; list it with one") from error
    return Expected(request.serial, claim.name, device, claim.any_product, claim.any_hardware, {})


async def returns(conn: AsyncConnection, subject: Expected, asked: Asked) -> bool:
    """Whether the asker is the device that the inventory knows; False for one that never came.

    Raises:
        Refused: The id is another device's.
    """
    known = await devices.get(conn, subject.device)
    if known is None or known.state == DeviceState.RETIRED:
        if asked.request.device is not None and known is None:
            raise Refused("unknown", f"device {asked.request.device}: not known here; it must come as a new one")
        return False
    if known.state == DeviceState.REVOKED:
        raise Refused("revoked", f"device {subject.device}: was revoked")
    keys = [(await devices.keys(conn, [known.id]))[known.id][0]]
    under_way = await renewals.get(conn, known.id)
    if under_way is not None:
        keys.append(under_way.report_key)
    if not any(_signed_by(stored, asked) for stored in keys):
        raise Refused("taken", f"serial {asked.request.serial}: a device with other keys has it; ask the operator")
    return True


def _signed_by(stored: Mapping[str, Any], asked: Asked) -> bool:
    fields = dict(stored)
    key = Key.from_dict(fields.pop("keyid"), fields)
    try:
        verify_with(key)(asked.pae, asked.signatures)
    except EnvelopeError:
        return False
    return True


def again(former: Enrolment, asked: Asked, now: datetime) -> Enrolment | None:
    """The answer to a key that was answered before; None where its certificate ran out and it must be judged anew."""
    if former.state == claims.REJECTED:
        raise Refused("rejected", former.reason or "an operator said no")
    if former.content_key != asked.request.content_key or former.serial != asked.request.serial:
        raise Refused("taken", f"serial {former.serial}: the same key asked with other values before")
    expires = x509.load_pem_x509_certificate(former.certificate.encode()).not_valid_after_utc
    return former if expires > now else None
