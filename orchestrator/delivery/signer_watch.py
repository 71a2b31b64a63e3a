"""How it stands with the signer: compared at the start, noticed when it is away, asked again for what it refused.

Nothing here is needed to be safe: a signer that is away signs nothing, and what was to be signed stays marked.
"""

import asyncio
from datetime import timedelta

import structlog

from orchestrator.config import Home
from orchestrator.delivery.trust_topics import read_timestamp
from orchestrator.errors import SignerAwayError
from orchestrator.signer.seam import SigningRoom
from orchestrator.storage import devices, dirty, events, published, rollouts
from orchestrator.storage.database import Database
from protocol.clock import Clock
from protocol.topics import Kind

log = structlog.get_logger(__name__)

PAGE = 1000
AGAIN = timedelta(seconds=30)
"""How often a rollout that the signer does not announce is tried again: somebody may have lifted its halt."""


class SignerWatch:
    """How a fleet's deliveries see their signer."""

    def __init__(self, db: Database, home: Home, signer: SigningRoom, clock: Clock) -> None:
        self._db = db
        self._home = home
        self._signer = signer
        self._clock = clock
        self._refused: dict[str, str] = {}
        self._tried = clock.now()
        self._away = ""
        self._beginning = asyncio.Lock()
        self._begun = False

    @property
    def trouble(self) -> str:
        """What keeps it from signing, for people; "" when all is well."""
        if self._away:
            return self._away
        return "; ".join(self._refused[rollout] for rollout in sorted(self._refused)[:5])

    async def until_begun(self, retry_s: float) -> None:
        """``begin``, waiting for a signer that is not there yet; raises what ``begin`` raises but for that."""
        async with self._beginning:
            while not self._begun:
                try:
                    await self.begin()
                    self._begun = True
                except SignerAwayError as error:
                    await self.away(error)
                    await asyncio.sleep(retry_s)

    async def begin(self) -> None:
        """Compare numbers, and tell it of revoked devices. Once, before anything is signed.

        Raises:
            SignerAwayError: It does not answer.
            ConflictError: Its marks are an old copy.
            OperationError: The home's trust folder is incomplete.
        """
        async with self._db.read() as conn:
            stored = await published.highest_order(conn)
        timestamp = await asyncio.to_thread(read_timestamp, self._home.trust)
        begun = await asyncio.to_thread(self._signer.begin, stored, timestamp.version)
        now = self._clock.now()
        async with self._db.begin() as conn:
            await published.note_order(conn, begun.order)
            await dirty.mark(conn, Kind.ANNOUNCE, await rollouts.known(conn, begun.halted), now)
            if begun.raised:
                text = f"the database is older than what was signed: epoch {begun.order[0]} begins"
                await events.add(conn, "epoch_raised", text, now)
        if begun.raised:
            log.warning("epoch raised", stored=stored, order=begun.order)
        await self._tell_revoked()
        await self.answered()

    async def away(self, error: SignerAwayError) -> None:
        """It does not answer."""
        if not self._away:
            log.warning("signer away", why=str(error))
        await self._note(str(error), self._refused)

    async def answered(self, refused: dict[str, str] | None = None, announced: list[str] | None = None) -> None:
        """It answered.

        Args:
            refused: Why it does not announce rollouts, by id.
            announced: Rollouts that it announced.
        """
        if self._away:
            log.info("signer answers")
        kept = {name: why for name, why in self._refused.items() if name not in (announced or ())}
        await self._note("", {**kept, **(refused or {})})

    async def try_again(self) -> None:
        """Mark rollouts that it did not announce, now and then."""
        if self._refused and self._clock.now() >= self._tried + AGAIN:
            self._tried = self._clock.now()
            async with self._db.begin() as conn:
                await dirty.mark(conn, Kind.ANNOUNCE, list(self._refused), self._clock.now())

    async def _note(self, away: str, refused: dict[str, str]) -> None:
        before = self.trouble
        self._away, self._refused = away, refused
        if self.trouble != before:
            async with self._db.begin() as conn:
                await dirty.mark(conn, Kind.STATUS_FLEET, [""], self._clock.now())

    async def _tell_revoked(self) -> None:
        after = ""
        while True:
            async with self._db.read() as conn:
                page = await devices.revoked(conn, after=after, limit=PAGE)
            if not page:
                return
            await asyncio.to_thread(self._signer.revoke, page, "revoked in the database")
            after = page[-1]
