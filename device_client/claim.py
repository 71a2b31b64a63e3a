"""Asking for a certificate under a claim: a new device's first, or one for a device whose own ran out.

    connect as the claim -> ask -> answer for our request? -> certificate for our key, by a CA that the folder has?

Everybody under a claim reads every answer, and the broker may invent one: only a certificate for our own key by a known
CA is believed; a refusal is only told to whoever asked.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from securesystemslib.signer import Signer

from device_client.config import DeviceHome, first_mistake
from device_client.durable import make_directory, read_capped, write_durably
from device_client.errors import NotFoundError, UsageError
from protocol.enrolment import ENROLMENT_TYPE, BrokerAddress, ClaimAnswer, ClaimFolder, ClaimRequest
from protocol.envelopes import decode, encode, sign
from protocol.errors import ProtocolError
from protocol.mqtt.connection import ConnectionSettings, Session, connect
from protocol.topics import RULES, Kind, Topics

FILES = ("claim.pem", "claim.key", "ca.pem", "root.json", "claim.json")
"""The last one makes the folder whole."""
MAX_FILE_BYTES = 65_536
ANSWER_WAIT_S = 15.0


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim folder that was read."""

    directory: Path
    says: ClaimFolder

    @property
    def ca(self) -> bytes:
        """Certificates that a broker's and a device's certificate must chain to."""
        return read_capped(self.directory / "ca.pem", MAX_FILE_BYTES)

    @property
    def root(self) -> bytes:
        """The TUF root that a device under this claim begins with."""
        return read_capped(self.directory / "root.json", MAX_FILE_BYTES)


@dataclass(frozen=True, slots=True)
class Question:
    """A signed request, and by what its answer is known."""

    envelope: bytes
    digest: str
    nonce: str


def load_claim(directory: Path) -> Claim:
    """Read a claim folder.

    Raises:
        NotFoundError: A file is missing.
        UsageError: ``claim.json`` is damaged.
    """
    for name in FILES:
        if not (directory / name).is_file():
            raise NotFoundError(f"{directory}: {name} is missing; expected a folder of 'flagship device claim create'")
    try:
        says = ClaimFolder.model_validate_json(read_capped(directory / "claim.json", MAX_FILE_BYTES))
    except ValidationError as error:
        raise UsageError(f"{directory}/claim.json: {first_mistake(error)}; copy the claim folder again") from error
    return Claim(directory, says)


def keep_claim(home: DeviceHome, claim: Claim) -> None:
    """Copy the folder into the device's home, for the day on which its own certificate has run out."""
    if claim.directory.resolve() == home.claim.resolve():
        return
    make_directory(home.claim, 0o700)
    (home.claim / FILES[-1]).unlink(missing_ok=True)
    for name in FILES:
        write_durably(home.claim / name, read_capped(claim.directory / name, MAX_FILE_BYTES))


def question(request: ClaimRequest, *signers: Signer) -> Question:
    """Sign a request with the new report key, and with the former one where the device comes back."""
    payload = encode(request)
    return Question(sign(payload, ENROLMENT_TYPE, *signers), hashlib.sha256(payload).hexdigest(), request.nonce)


async def ask(
    claim: Claim,
    address: BrokerAddress,
    asked: Question,
    *,
    ca: Path | None = None,
    check_time: bool = True,
    wait_s: float = ANSWER_WAIT_S,
) -> ClaimAnswer | None:
    """Ask once; None where no answer came in time.

    Raises:
        ConnectionLost: The broker is not reached, or another device came under the same claim.
    """
    says, topics = claim.says, Topics(claim.says.fleet)
    target = ConnectionSettings(
        host=address.host,
        port=address.port,
        client_id=says.claim,
        ca=ca or claim.directory / "ca.pem",
        certificate=claim.directory / "claim.pem",
        key=claim.directory / "claim.key",
        check_time=check_time,
    )
    async with connect(target) as session:
        where = topics.build(Kind.ENROL_ANSWER, claim=says.claim)
        await session.subscribe([(where, RULES[Kind.ENROL_ANSWER].qos)])
        request = topics.build(Kind.ENROL_REQUEST, claim=says.claim)
        await session.publish(request, asked.envelope, qos=RULES[Kind.ENROL_REQUEST].qos)
        try:
            async with asyncio.timeout(wait_s):
                return await _answer(session, says.fleet, asked)
        except TimeoutError:
            return None


async def _answer(session: Session, fleet: str, asked: Question) -> ClaimAnswer:
    """The answer to this question; what is for others, or is none, is passed over."""
    async for message in session.messages():
        if message.retain or len(message.payload) > RULES[Kind.ENROL_ANSWER].max_bytes:
            continue
        try:
            answer = decode(message.payload, ClaimAnswer)
        except ProtocolError:
            continue
        if (answer.fleet, answer.request, answer.nonce) == (fleet, asked.digest, asked.nonce):
            return answer
    raise AssertionError("messages() ends by ConnectionLost only")
