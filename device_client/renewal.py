"""A new certificate before the old one runs out: new keys, a request signed with the old one, repeated until answered.

At two thirds of the certificate's life. A disk that is full or an answer that does not fit costs another try, not the
present identity.
"""

import asyncio
import hashlib
from collections.abc import Callable
from datetime import datetime
from random import Random

import structlog
from pydantic import BaseModel

from device_client import identity, new_identity
from device_client.clock import FlooredClock
from device_client.config import DeviceHome, DeviceSettings
from device_client.connection_sets import present
from device_client.errors import ConflictError, DeviceError
from device_client.identity_files import IdentityFiles, check_certificate, load_device_key, public_halves
from device_client.new_identity import NewIdentity
from device_client.reporter import Reporter
from protocol.enrolment import IssuedCertificate
from protocol.envelopes import decode, parse
from protocol.errors import EnvelopeError, ErrorCode, ProtocolError
from protocol.mqtt.connection import Message, backoff
from protocol.reports import RENEWAL_TYPE
from protocol.topics import RULES, Kind, Topics

log = structlog.get_logger(__name__)

SPREAD_RATIO = 0.05
"""Share of a life over which devices that were enrolled together renew."""
REPEAT_CAP_S = 3600.0


class Times(BaseModel):
    """When a certificate is to be renewed, and when it is over."""

    renew_at: datetime
    expires: datetime


def renewal_times(begin: datetime, end: datetime, ratio: float, device: str) -> Times:
    """Pure: the same for the same certificate and device, spread over devices."""
    place = int.from_bytes(hashlib.sha256(device.encode()).digest()[:4], "big") / 2**32
    share = min(1.0, ratio + SPREAD_RATIO * place)
    return Times(renew_at=begin + (end - begin) * share, expires=end)


class Renewal:
    """One device's renewals."""

    def __init__(
        self,
        home: DeviceHome,
        settings: DeviceSettings,
        topics: Topics,
        reporter: Reporter,
        clock: FlooredClock,
        random: Random,
        whole: Callable[[str], None],
    ) -> None:
        """Make it.

        Args:
            whole: Is told when a new identity is whole and can be tried.
        """
        self._home = home
        self._settings = settings
        self._device = settings.device.id
        self._topics = topics
        self._topic = topics.build(Kind.CERT, device=self._device)
        self._reporter = reporter
        self._clock = clock
        self._random = random
        self._whole = whole
        self._times: Times | None = None
        self._asking: bytes | None = None
        self._said = 0
        self._next_at = 0.0
        self._answer: bytes | None = None

    @property
    def subscription(self) -> tuple[str, int]:
        """What to subscribe to on every new connection."""
        return self._topic, RULES[Kind.CERT].qos

    def begin(self) -> None:
        """A connection was made, perhaps under another identity: look at everything again."""
        self._times, self._asking, self._next_at, self._said = None, None, 0.0, 0

    def receive(self, message: Message) -> bool:
        """Take a message that is for this room; False for every other. Never waits."""
        if message.topic != self._topic:
            return False
        if message.payload and len(message.payload) <= RULES[Kind.CERT].max_bytes:
            self._answer = message.payload
        return True

    async def tick(self) -> None:
        """Do what is due. Nothing that fails in here ends the agent."""
        try:
            await self._step()
        except (DeviceError, ProtocolError) as error:
            log.warning("renewal interrupted", why=str(error)[:500])
            self._wait()

    async def _step(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and await asyncio.to_thread(self._take, answer):
            self._whole("a renewed certificate came")
            return
        if self._clock.monotonic() < self._next_at:
            return
        if self._times is None:
            self._times = await asyncio.to_thread(self._read_times)
        now = self._clock.proven
        if self._asking is None and now is not None and now >= self._times.renew_at:
            self._asking = await asyncio.to_thread(self._request)
        if self._asking:
            await self._reporter.renew(self._asking)
        self._wait()

    def _wait(self) -> None:
        """What is not answered is said again, ever more rarely."""
        base = self._settings.timing.readiness_retry_s
        pause = backoff(self._said, self._random, base, REPEAT_CAP_S) if self._asking else min(base, 60.0) / 4
        self._said += 1 if self._asking else 0
        self._next_at = self._clock.monotonic() + pause

    def _read_times(self) -> Times:
        begin, end = identity.certificate_times(self._home)
        return renewal_times(begin, end, self._settings.timing.renew_at_ratio, self._device)

    def _request(self) -> bytes:
        """The request that is on its way already, or a new one. Empty while a whole identity is on trial."""
        found = new_identity.find(self._home)
        if found is not None and found.is_whole:
            return b""
        if found is not None and self._is_mine(found):
            return found.request
        made = new_identity.prepare(self._home, self._sign)
        log.info("new keys made")
        return made.request

    def _sign(self, files: IdentityFiles) -> bytes:
        csr, content_key = public_halves(files, self._device)
        return self._reporter.renewal(csr, content_key)

    def _is_mine(self, found: NewIdentity) -> bool:
        """Whether the request that was found is a renewal by the present key."""
        keyid = identity.load_report_signer(self._home).public_key.keyid
        try:
            return keyid in parse(found.request, RULES[Kind.RENEW].max_bytes, RENEWAL_TYPE).signatures
        except EnvelopeError:
            return False

    def _take(self, raw: bytes) -> bool:
        """Keep the certificate that answers our request; whatever else came is nothing."""
        found = new_identity.find(self._home)
        if found is None or found.is_whole or not self._is_mine(found):
            return False
        message = decode(raw, IssuedCertificate)
        if (message.fleet, message.device) != (self._topics.fleet, self._device):
            raise EnvelopeError(ErrorCode.SCOPE, f"certificate of {message.device} in {message.fleet}")
        asked = parse(found.request, RULES[Kind.RENEW].max_bytes, RENEWAL_TYPE)
        if message.request != hashlib.sha256(asked.payload).hexdigest():
            return False  # it answers an older request
        cas = present(self._home).ca.read_bytes()
        key = load_device_key(found.files).public_key()
        name = check_certificate(message.certificate, self._topic, key=key, cas=cas)
        if name != self._device:
            raise ConflictError(f"{self._topic}: the certificate is for {name}")
        enrolment = identity.load_enrolment(self._home)
        new_identity.complete(found, message.certificate, enrolment, self._clock.now())
        log.info("certificate came")
        return True
