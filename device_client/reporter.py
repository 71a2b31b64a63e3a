"""What this device says: built, ordered, signed and sent over whatever connection there is.

Nothing is queued: without a connection a report is not sent, and the runner repeats what must be heard. A report that
is too large is cut, never dropped: an outcome that cannot be said would be repeated for ever and block the next update.
"""

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import structlog
from pydantic import BaseModel
from securesystemslib.signer import Signer

from device_client.agent.journal import Update
from device_client.boot import boot_id
from device_client.config import DeviceSettings
from device_client.download.progress import Standing
from device_client.inventory import describe
from protocol.clock import Clock
from protocol.envelopes import encode, sign
from protocol.mqtt.connection import ConnectionLost, RequestRefused, Session
from protocol.reports import (
    INVENTORY_TYPE,
    READINESS_TYPE,
    RENEWAL_TYPE,
    STATE_TYPE,
    Presence,
    Progress,
    Readiness,
    Reason,
    Refusal,
    Renewal,
    StateReport,
    Want,
)
from protocol.states import Phase, State
from protocol.topics import RULES, Kind, Topics

log = structlog.get_logger(__name__)

LOG_TAIL_CHARACTERS = 8_000


class Reporter:
    """One device's voice."""

    def __init__(self, topics: Topics, device: str, signer: Signer, clock: Clock) -> None:
        self._topics = topics
        self._device = device
        self._signer = signer
        self._clock = clock
        self._session: Session | None = None
        self._number = 0
        self._seq = 0
        # Never stored: a copy of this home must come up under another one.
        self._instance, self._boot = secrets.token_hex(8), boot_id()
        self.spoke_at = 0.0  # when the last signed report was made, monotonic

    def attach(self, session: Session, number: int) -> None:
        """Use this connection; ``number`` was raised durably before it was made."""
        self._session, self._number, self._seq = session, number, 0

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to send on."""
        return self._session is not None

    def detach(self) -> None:
        """There is no connection any more."""
        self._session = None

    async def inventory(
        self,
        settings: DeviceSettings,
        running_version: str | None,
        stale_since: datetime | None,
        refusals: Sequence[Refusal],
    ) -> None:
        """Say what this device is and runs, and what it refuses."""
        if self._session:
            header = self._header()
            report = describe(
                settings,
                fleet=header["fleet"],
                running_version=running_version,
                session=header["session"],
                seq=header["seq"],
                issued=header["issued"],
                instance=self._instance,
                boot=self._boot,
                stale_since=stale_since,
                refusals=refusals,
            )
            await self._send(Kind.INVENTORY, sign(encode(report), INVENTORY_TYPE, self._signer))

    async def readiness(
        self,
        rollout: str,
        attempt: int,
        nonce: str,
        phase: Phase,
        reasons: list[Reason],
        *,
        ready: bool,
        stale: bool,
    ) -> None:
        """Say which gates are open."""
        if self._session:
            report = Readiness(
                **self._header(),
                rollout=rollout,
                attempt=attempt,
                nonce=nonce,
                phase=phase,
                ready=ready,
                reasons=reasons[:32],
                stale=stale,
            )
            await self._send(Kind.READINESS, self._sealed(Kind.READINESS, READINESS_TYPE, report))

    async def state(self, update: Update, running_version: str | None) -> None:
        """Say where the update stands."""
        if self._session:
            report = StateReport(
                **self._header(),
                rollout=update.offer.rollout,
                attempt=update.offer.attempt,
                release=update.offer.release,
                nonce=update.nonce,
                state=_said(update),
                code=update.code,
                detail=update.detail[:500],
                phase=update.phase,
                reasons=update.reasons[:32],
                from_version=update.from_version,
                running_version=running_version,
                resumed=update.resumed,
                bytes_fetched=update.bytes_fetched,
                log=update.log[-LOG_TAIL_CHARACTERS:],
                offline_until=update.offer.offline_until if update.offline else None,
            )
            await self._send(Kind.STATE, self._sealed(Kind.STATE, STATE_TYPE, report))

    async def progress(self, update: Update, standing: Standing) -> None:
        """A hint for people."""
        message = Progress(
            rollout=update.offer.rollout,
            state=update.state,
            attempt=update.offer.attempt,
            percent=standing.percent,
            bytes_fetched=standing.fetched_bytes,
            bytes_copied=standing.copied_bytes,
            bytes_delta=standing.delta_bytes,
            bytes_present=standing.present_bytes,
            bytes_total=standing.total_bytes,
            rate_bytes_s=standing.rate_bytes_s,
            remaining_s=standing.remaining_s,
            at=self._clock.now(),
        )
        await self._send(Kind.PROGRESS, encode(message))

    async def want(self, rollout: str, cids: list[str]) -> None:
        """Name chunks that did not come."""
        await self._send(Kind.WANT, encode(Want(rollout=rollout, cids=cids[:64])))

    def sign_as(self, signer: Signer) -> None:
        """Sign with another key from now on."""
        self._signer = signer

    def renewal(self, csr: str, content_key: str) -> bytes:
        """A request for a certificate for new keys, signed with the present one; to be sent as it is, repeatedly."""
        report = Renewal(**self._header(), csr=csr, content_key=content_key)
        return sign(encode(report), RENEWAL_TYPE, self._signer)

    async def renew(self, request: bytes) -> None:
        """Ask for what ``renewal`` made."""
        await self._send(Kind.RENEW, request)

    async def presence(self, *, online: bool) -> None:
        """A hint: here, or leaving."""
        await self._send(Kind.PRESENCE, encode(Presence(session=self._number, online=online)))

    def _sealed(self, kind: Kind, payload_type: str, report: Readiness | StateReport) -> bytes:
        """Signed, and cut until it fits: the log first, then the reasons' details, then the reasons."""
        signed = sign(encode(report), payload_type, self._signer)
        while len(signed) > RULES[kind].max_bytes and (smaller := _cut(report)) is not None:
            report = smaller
            signed = sign(encode(report), payload_type, self._signer)
        return signed

    def _header(self) -> dict[str, Any]:
        self._seq += 1
        self.spoke_at = self._clock.monotonic()
        return {
            "fleet": self._topics.fleet,
            "issued": self._clock.now(),
            "device": self._device,
            "session": self._number,
            "seq": self._seq,
        }

    async def _send(self, kind: Kind, payload: bytes) -> None:
        session, rule = self._session, RULES[kind]
        if session is None:
            return
        if len(payload) > rule.max_bytes:
            log.warning("report dropped", kind=kind.name, why=f"{len(payload)} B, at most {rule.max_bytes}")
            return
        try:
            await session.publish(self._topics.build(kind, device=self._device), payload, qos=rule.qos)
        except (ConnectionLost, RequestRefused) as error:
            log.info("report not sent", kind=kind.name, why=str(error))


def will(device: str, topics: Topics, number: int) -> tuple[str, BaseModel]:
    """Topic and content of the last will: it ends only its own session."""
    return topics.build(Kind.PRESENCE, device=device), Presence(session=number, online=False)


def _said(update: Update) -> State:
    """The word for the orchestrator: who waits to install has fetched, and says with that whether gates are shut."""
    if update.state is State.WAITING and update.phase is Phase.INSTALL:
        return State.FETCHED
    return update.state


def _cut(report: Readiness | StateReport) -> Readiness | StateReport | None:
    """The same report with about half of its longest part; None when there is nothing left to leave out."""
    log_text = report.log if isinstance(report, StateReport) else ""
    if log_text:
        return report.model_copy(update={"log": log_text[len(log_text) // 2 + 1 :]})
    longest = max((len(reason.detail) for reason in report.reasons), default=0)
    if longest:
        shorter = [r.model_copy(update={"detail": r.detail[: longest // 2]}) for r in report.reasons]
        return report.model_copy(update={"reasons": shorter})
    if report.reasons:
        return report.model_copy(update={"reasons": report.reasons[: len(report.reasons) // 2]})
    if isinstance(report, StateReport) and report.detail:
        return report.model_copy(update={"detail": report.detail[: len(report.detail) // 2]})
    return None
