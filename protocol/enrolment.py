"""The two files of enrolment: a device's request and the orchestrator's answer. Private keys are in neither."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from protocol.identifiers import IdText

MAX_REQUEST_BYTES = 16_384
MAX_ANSWER_BYTES = 131_072
Pem = Annotated[str, StringConstraints(min_length=40, max_length=16_384)]


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


class EnrolmentAnswers(BaseModel):
    """The file of ``flagship device enrol``: one answer per request."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: Literal[1] = 1
    answers: Annotated[list[EnrolmentAnswer], Field(min_length=1, max_length=10_000)]
