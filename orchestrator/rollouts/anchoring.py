"""Has the signer sign where the audit log ends: every hour, and at once when a rollout was halted.

What the signer refuses to sign is an event, and changes nothing: orders go out as before, and a verifier says which
entries are not anchored.
"""

import asyncio
import contextlib
from typing import Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import ConflictError, LostLeadError, OperationError
from orchestrator.model.audit import AUDIT_HEAD_TYPE, MAX_HEAD_BYTES, Head, SignedHead
from orchestrator.storage import audit, events
from orchestrator.storage.database import Database
from orchestrator.storage.lead import check_lead
from protocol.clock import Clock
from protocol.envelopes import decode, parse
from protocol.errors import EnvelopeError

log = structlog.get_logger(__name__)

RETRY_S = 60.0
"""The longest wait for another try while nothing is signed."""


class SignsHeads(Protocol):
    """The part of ``signer.seam.SigningRoom`` that this needs."""

    def sign_head(self, entry: int, digest: str) -> bytes:
        """Sign where the log ends."""
        ...


class Anchor:
    """Keeps signed heads of one database's log."""

    def __init__(self, db: Database, signer: SignsHeads, clock: Clock, every_s: float) -> None:
        self._db = db
        self._signer = signer
        self._clock = clock
        self._every_s = every_s
        self._woken = asyncio.Event()
        self._refused = ""

    def wake(self) -> None:
        """Sign at once."""
        self._woken.set()

    async def run(self) -> None:
        """Sign, again and again, until cancelled.

        Raises:
            LostLeadError: Another orchestrator took over.
        """
        while True:
            self._woken.clear()
            wait_s = self._every_s
            try:
                await self.sign()
            except LostLeadError:
                raise
            except OperationError as error:
                log.error("audit head not signed", why=str(error))
                await self._tell(error)
                wait_s = min(wait_s, RETRY_S)
            try:
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def sign(self) -> SignedHead | None:
        """Sign the last entry and keep it; None where that was done before.

        Raises:
            LostLeadError: Another orchestrator took over.
            OperationError: The signer or the database did not.
        """
        head = await self._db.write(_unsigned)
        if head is None:
            return None
        envelope = await asyncio.to_thread(self._signer.sign_head, head.id, head.hash)
        signed = read_head(envelope)
        async with self._db.begin() as conn:
            await check_lead(conn)
            await audit.add_head(conn, signed, envelope)
        log.info("audit head signed", entry=signed.id, digest=signed.hash[:12])
        return signed

    async def _tell(self, error: OperationError) -> None:
        """A refusal stands in the events, once: somebody must look."""
        if not isinstance(error, ConflictError) or str(error) == self._refused:
            return
        with contextlib.suppress(OperationError):  # it is told at the next try
            async with self._db.begin() as conn:
                await events.add(conn, "audit_head_refused", str(error), self._clock.now(), actor="signer")
            self._refused = str(error)


def read_head(envelope: bytes) -> SignedHead:
    """What an envelope says; who signed it is not looked at.

    Raises:
        OperationError: It is no signed head.
    """
    try:
        return decode(parse(envelope, MAX_HEAD_BYTES, AUDIT_HEAD_TYPE).payload, SignedHead)
    except EnvelopeError as error:
        raise OperationError(f"audit head: {error}") from error


async def _unsigned(conn: AsyncConnection) -> Head | None:
    await check_lead(conn)  # the signer would remember a head that is not this log's
    head = await audit.head(conn)
    return head if head.id > await audit.last_signed(conn) else None
