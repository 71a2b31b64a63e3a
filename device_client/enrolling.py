"""A device's way to a certificate under a claim: the first, stored as an answers file is; a later one, on trial."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import structlog

from device_client import connection_sets, identity, new_identity
from device_client.claim import Claim, Question, ask, keep_claim, load_claim, question
from device_client.clock import FlooredClock, doubt
from device_client.config import DeviceHome, DeviceSettings, settings_from, write
from device_client.durable import write_durably
from device_client.errors import ConflictError, DeviceError, UnreachableError, WaitingError
from device_client.identity import Enrolment
from device_client.identity_files import IdentityFiles, check_certificate, load_device_key, public_halves
from protocol.clock import Clock
from protocol.enrolment import ClaimAnswer, ClaimRequest
from protocol.mqtt.connection import ConnectionLost, RequestRefused, backoff

log = structlog.get_logger(__name__)

RETRY_BASE_S = 1.0
RETRY_CAP_S = 120.0
RETURN_CAP_S = 900.0
RETURN_AFTER_FAILURES = 10
"""Where the clock is not believed, nobody knows whether the certificate ran out; asking is harmless."""


@dataclass(frozen=True, slots=True)
class Newcomer:
    """What a device says of itself when it asks."""

    serial: str
    product: str
    hardware: str


async def obtain(
    claim: Claim,
    make: Callable[[], Question],
    clock: Clock,
    random: Random,
    *,
    timeout_s: float | None,
    told: Callable[[str], None],
) -> ClaimAnswer:
    """Ask until there is a certificate.

    Args:
        timeout_s: How long; None is for ever.
        told: Hears what it waits for, once per news.

    Raises:
        ConflictError: It was refused.
        WaitingError: A person did not approve in time.
        UnreachableError: No answer came in time.
    """
    attempt, heard, since = 0, "", clock.monotonic()
    while True:
        address = claim.says.enrol[attempt % len(claim.says.enrol)]
        pause = 0.0
        try:
            answer = await ask(claim, address, await asyncio.to_thread(make), check_time=not doubt(clock.now(), None))
            news = "no answer" if answer is None else f"{answer.status}: {answer.detail or answer.code}"
        except (ConnectionLost, RequestRefused) as error:
            answer, news = None, str(error)
        if answer is not None and answer.status == "issued":
            return answer
        if answer is not None and answer.status == "refused":
            raise ConflictError(f"claim {claim.says.claim}: refused ({answer.code}): {answer.detail}")
        if news != heard:
            told(news)
        heard = news
        if answer is not None:
            pause = random.uniform(0.5, 1.0) * min(answer.retry_after_s, RETRY_CAP_S)
        pause = max(pause, backoff(attempt, random, RETRY_BASE_S, RETRY_CAP_S))
        if timeout_s is not None and clock.monotonic() - since + pause > timeout_s:
            if answer is not None:
                raise WaitingError(
                    f"claim {claim.says.claim}: {answer.detail or 'pending'}; approve it, then ask again"
                )
            raise UnreachableError(f"claim {claim.says.claim}: no answer within {timeout_s:g} s ({news})")
        await asyncio.sleep(pause)
        attempt += 1


def first_question(home: DeviceHome, claim: Claim, who: Newcomer, clock: Clock) -> Question:
    """What a device without a certificate asks. Blocking."""
    request = _request(IdentityFiles(home), claim, who, clock)
    return question(request, identity.load_report_signer(home))


def return_question(home: DeviceHome, claim: Claim, settings: DeviceSettings, clock: Clock) -> Question:
    """What a device asks whose certificate ran out: new keys, signed by them and by the former one. Blocking.

    Raises:
        ConflictError: The device does not know its serial.
    """
    device = settings.device
    if device.serial is None:
        raise ConflictError(f"{home.config}: device.serial is not set; without it nobody can come back under a claim")
    who = Newcomer(device.serial, device.product, device.hardware)
    found = new_identity.find(home)
    if found is None or found.is_whole:
        found = new_identity.prepare(home, lambda _: b"return")
    request = _request(found.files, claim, who, clock, device.id)
    new = identity.load_report_signer(home, found.files.directory)
    return question(request, new, identity.load_report_signer(home))


def accept_first(
    home: DeviceHome, claim: Claim, answer: ClaimAnswer, settings: Callable[[str], DeviceSettings], clock: Clock
) -> Enrolment:
    """Check the first certificate and keep it with all that belongs to it; ``fleet.json`` comes last. Blocking.

    Args:
        settings: Makes the device's settings, given its id.

    Raises:
        ConflictError: It is for another key or device, or not by this fleet's CA.
    """
    files = IdentityFiles(home)
    cas = claim.ca
    device = check_certificate(answer.certificate or "", "answer", key=load_device_key(files).public_key(), cas=cas)
    wanted = settings(device)
    if wanted.device.id != device:
        raise ConflictError(f"{home.config}: is the home of device {wanted.device.id}, the certificate is for {device}")
    keep_claim(home, claim)
    write(home, wanted)
    if not files.root.exists():
        write_durably(files.root, claim.root, 0o644)
    write_durably(files.ca, cas, 0o644)
    write_durably(files.certificate, (answer.certificate or "").encode(), 0o644)
    enrolment = Enrolment(fleet=claim.says.fleet, device=device, brokers=claim.says.brokers, since=clock.now())
    write_durably(files.enrolment, enrolment.model_dump_json().encode(), 0o644)
    return enrolment


def accept_return(home: DeviceHome, claim: Claim, answer: ClaimAnswer, clock: Clock) -> None:
    """Check a certificate for the new keys; it is tried with the next connection. Blocking.

    Raises:
        ConflictError: It is for another key or device, or not by this fleet's CA.
    """
    found, enrolment = new_identity.find(home), identity.load_enrolment(home)
    if found is None:
        raise ConflictError(f"{home.identities}: the keys of this request are gone; it is asked again")
    cas = connection_sets.present(home).ca.read_bytes() + b"\n" + claim.ca
    key = load_device_key(found.files).public_key()
    device = check_certificate(answer.certificate or "", "answer", key=key, cas=cas)
    if device != enrolment.device:
        raise ConflictError(f"answer: the certificate is for {device}, this is {enrolment.device}")
    new_identity.complete(found, answer.certificate or "", enrolment, clock.now())
    log.info("certificate came")


class Returning:
    """The running agent's way back when its certificate ran out: by the claim folder that it came with."""

    def __init__(self, home: DeviceHome, settings: DeviceSettings, clock: FlooredClock, random: Random) -> None:
        self._home = home
        self._settings = settings
        self._clock = clock
        self._random = random
        self._attempt = 0
        self._next_at = 0.0

    async def step(self, failures: int) -> None:
        """Ask once where that is due; nothing that fails in here ends the agent.

        Args:
            failures: Tries to connect since the last connection; a device without a clock has no other sign.
        """
        if self._clock.monotonic() < self._next_at:
            return
        try:
            if await asyncio.to_thread(self._is_needed, failures):
                await self._ask()
        except (DeviceError, ConnectionLost, RequestRefused) as error:
            log.warning("not returned yet", why=str(error)[:500])
            self._wait(0.0)

    def _is_needed(self, failures: int) -> bool:
        if not (self._home.claim / "claim.json").is_file() or self._settings.device.serial is None:
            return False
        found = new_identity.find(self._home)
        on_trial = found is not None and found.is_whole
        now, expiry = self._clock.proven, identity.certificate_expiry(self._home)
        is_over = now is not None and expiry <= now
        return not on_trial and (is_over or (bool(self._clock.doubt) and failures >= RETURN_AFTER_FAILURES))

    async def _ask(self) -> None:
        claim = await asyncio.to_thread(load_claim, self._home.claim)
        asked = await asyncio.to_thread(return_question, self._home, claim, self._settings, self._clock)
        address = claim.says.enrol[self._attempt % len(claim.says.enrol)]
        answer = await ask(claim, address, asked, check_time=not self._clock.doubt)
        if answer is not None and answer.status == "issued":
            await asyncio.to_thread(accept_return, self._home, claim, answer, self._clock)
            self._attempt, self._next_at = 0, 0.0
            return
        why = "no answer" if answer is None else f"{answer.status}: {answer.detail or answer.code}"
        log.warning("not returned yet", why=why)
        self._wait(answer.retry_after_s if answer else 0.0)

    def _wait(self, told_s: float) -> None:
        timing = self._settings.timing
        pause = backoff(self._attempt, self._random, timing.connect_backoff_s, RETURN_CAP_S)
        self._next_at = self._clock.monotonic() + max(pause, self._random.uniform(0.5, 1.0) * min(told_s, RETURN_CAP_S))
        self._attempt += 1


def settings_for(
    home: DeviceHome, who: Newcomer, device: str, present: DeviceSettings | None, rest: dict[str, object]
) -> DeviceSettings:
    """The settings of a device that learned its id: what ``device.toml`` has, or what was said when it asked."""
    if present is not None:
        changed = present.device.model_copy(update={"serial": who.serial})
        return present.model_copy(update={"device": changed})
    section = {"id": device, "serial": who.serial, "product": who.product, "hardware": who.hardware}
    return settings_from({**rest, "device": {**section, **_table(rest.get("device"))}}, f"enrol in {home.path}")


def _table(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, dict) else {}


def _request(
    files: IdentityFiles, claim: Claim, who: Newcomer, clock: Clock, device: str | None = None
) -> ClaimRequest:
    csr, content_key = public_halves(files, who.serial)
    return ClaimRequest(
        fleet=claim.says.fleet,
        claim=claim.says.claim,
        serial=who.serial,
        device=device,
        product=who.product,
        hardware=who.hardware,
        csr=csr,
        content_key=content_key,
        nonce=secrets.token_hex(16),
        issued=clock.now(),
    )
