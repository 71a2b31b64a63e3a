"""Enrolment and renewal on paper: requests, answers, what a claim folder and a connection target hold.

By hand, a device's request and the orchestrator's answer are files; over MQTT, they are messages under a claim
certificate. Private keys are in none of them.
"""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from protocol.identifiers import ClaimText, DigestText, IdText, SerialText

MAX_REQUEST_BYTES = 16_384
MAX_ANSWER_BYTES = 131_072
ENROLMENT_TYPE = "application/vnd.flagship.enrolment+json"
MAX_MIRRORS = 8
MAX_URL = 500
Pem = Annotated[str, StringConstraints(min_length=40, max_length=16_384)]


def check_mirror_url(text: str) -> str:
    """The base address of a mirror, without a slash at the end; raises ValueError unless it is plain https."""
    expected = "expected https://HOST[:PORT][/PATH]"
    if len(text) > MAX_URL or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{expected}, at most {MAX_URL} printable ASCII characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{expected}, found no address") from error
    if parts.scheme != "https" or not parts.hostname or port == 0:
        raise ValueError(f"{expected}, found {parts.scheme or 'no scheme'}")
    if "@" in parts.netloc or "?" in text or "#" in text:
        raise ValueError(f"{expected}, without user, query or fragment")
    return text.rstrip("/")


HttpsUrl = Annotated[str, AfterValidator(check_mirror_url)]


class MirrorAddress(BaseModel):
    """Where ``/chunks/{cid}`` is served over HTTPS.

    Attributes:
        url: Base address; a chunk is at ``{url}/chunks/{cid}``.
        ca: By whom its certificate is: the fleet's own CA, or any that the device's system trusts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: HttpsUrl
    ca: Literal["fleet", "system"] = "fleet"


# Left out where there are none: what was written before there were mirrors has the same bytes today.
Mirrors = Annotated[list[MirrorAddress], Field(max_length=MAX_MIRRORS, exclude_if=lambda mirrors: not mirrors)]


class BrokerAddress(BaseModel):
    """Where a broker listens for devices."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    port: Annotated[int, Field(gt=0, lt=65536)]


class EnrolmentRequest(BaseModel):
    """What the device's owner carries to the orchestrator.

    Attributes:
        csr: PKCS#10 in PEM for the device's P-256 key; its signature proves possession, its subject is ignored.
        content_key: X25519 public key, 32 B in base64.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: Literal[1] = 1
    device: IdText
    product: IdText
    hardware: IdText
    labels: dict[IdText, Annotated[str, StringConstraints(max_length=64)]] = {}
    csr: Pem
    content_key: Annotated[str, StringConstraints(min_length=44, max_length=44)]


class EnrolmentAnswer(BaseModel):
    """What goes back to one device; public, but meant for this device alone.

    Attributes:
        ca: Certificates that a broker's certificate must chain to, PEM.
        root: TUF root metadata, the newest, as text.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: Literal[1] = 1
    fleet: IdText
    device: IdText
    certificate: Pem
    ca: Pem
    root: Annotated[str, StringConstraints(max_length=16_384)]
    brokers: Annotated[list[BrokerAddress], Field(min_length=1, max_length=16)]
    mirrors: Mirrors = []


class EnrolmentAnswers(BaseModel):
    """The file of ``flagship device enrol``: one answer per request."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: Literal[1] = 1
    answers: Annotated[list[EnrolmentAnswer], Field(min_length=1, max_length=10_000)]


class ClaimRequest(BaseModel):
    """What a device asks for under a claim certificate: the payload of an envelope that its new report key signed.

    Attributes:
        device: Its former id, where it comes back; then the former report key signed the envelope too.
        product, hardware: What the device takes itself for; must be what the inventory says.
        csr: PKCS#10 in PEM for the new P-256 key; its subject is ignored.
        content_key: X25519 public key, 32 B in base64.
        nonce: Echoed by the answer.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: Literal[1] = 1
    type: Literal["enrolment"] = "enrolment"
    fleet: IdText
    claim: ClaimText
    serial: SerialText
    device: IdText | None = None
    product: IdText
    hardware: IdText
    csr: Annotated[str, StringConstraints(min_length=40, max_length=8_192)]
    content_key: Annotated[str, StringConstraints(min_length=44, max_length=44)]
    nonce: Annotated[str, StringConstraints(min_length=8, max_length=64)]
    issued: AwareDatetime


class ClaimAnswer(BaseModel):
    """What everybody under one claim can read and one device can use: its certificate is for that device's key.

    Attributes:
        request: sha256 hex of the request's payload: whose answer this is.
        code: Why it was refused, or what it waits for.
        retry_after_s: When to ask again.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: Literal[1] = 1
    fleet: IdText
    request: DigestText
    nonce: Annotated[str, StringConstraints(min_length=8, max_length=64)]
    status: Literal["issued", "pending", "refused"]
    device: IdText | None = None
    certificate: Pem | None = None
    code: Annotated[str, StringConstraints(max_length=40)] = ""
    detail: Annotated[str, StringConstraints(max_length=300)] = ""
    retry_after_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 0


class IssuedCertificate(BaseModel):
    """``cert/{device}``: the answer to a renewal. The CA's signature is what counts.

    Attributes:
        request: sha256 hex of the renewal's payload.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: Literal[1] = 1
    fleet: IdText
    device: IdText
    request: DigestText
    certificate: Pem


class ClaimFolder(BaseModel):
    """``claim.json`` of a claim folder; ``claim.pem``, ``claim.key``, ``ca.pem`` and ``root.json`` lie beside it.

    Attributes:
        enrol: Where brokers listen for claims.
        brokers: Where they listen for devices.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: Literal[1] = 1
    fleet: IdText
    claim: ClaimText
    enrol: Annotated[list[BrokerAddress], Field(min_length=1, max_length=16)]
    brokers: Annotated[list[BrokerAddress], Field(min_length=1, max_length=16)]


class ConnectionTarget(BaseModel):
    """The signed ``connection`` target: how devices reach their fleet from now on.

    Attributes:
        version: Rises with each.
        ca: Certificates that a broker's and a device's certificate must chain to, PEM.
        mirrors: Where chunks are to be had beside the brokers. Only what the offline keys signed names a host: an
            order of the director never does, so that who stole its key cannot point devices anywhere.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: Literal[1] = 1
    fleet: IdText
    version: Annotated[int, Field(ge=1, le=999_999_999)]
    ca: Pem
    brokers: Annotated[list[BrokerAddress], Field(min_length=1, max_length=16)]
    mirrors: Mirrors = []
