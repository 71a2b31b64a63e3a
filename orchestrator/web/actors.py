"""Who speaks: from the token of a request to an actor's name.

The home's own token is ``admin``; every other is looked up by its digest. What was found holds for some seconds, unless
it is revoked here. Tokens are looked up one at a time, so that guessers who come at once are counted like others.
"""

import asyncio
import hmac
import math
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import structlog

from orchestrator.errors import OperationError
from orchestrator.fleet.tokens import digest
from orchestrator.model.actor import ADMIN
from orchestrator.storage import tokens
from orchestrator.storage.database import Database
from orchestrator.storage.tokens import Token
from orchestrator.web.failure_limit import FailureLimit, Verdict
from protocol.clock import Clock

log = structlog.get_logger(__name__)

KNOWN_FOR_S = 5.0
USE_NOTED_EVERY = timedelta(hours=1)
_BEARER = "bearer "


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why a request has no actor."""

    status: int
    detail: str
    headers: dict[str, str] = field(default_factory=dict)


_NOBODY = Unknown(
    401,
    "the token is none of the fleet that is served here, or was revoked; "
    "name the fleet's home with --home, or another token with FLAGSHIP_TOKEN or --token-file",
    {"WWW-Authenticate": "Bearer"},
)


class Actors:
    """Knows tokens by their digests.

    Args:
        admin_token: The home's own.
    """

    def __init__(self, db: Database, clock: Clock, admin_token: str) -> None:
        self._db = db
        self._clock = clock
        self._admin = digest(admin_token.encode())
        self._limit = FailureLimit()
        self._known: dict[str, tuple[str, float]] = {}  # digest -> (name, until)
        self._forgotten = 0  # how often; what was read before is not kept after
        self._one_at_a_time = asyncio.Lock()

    async def recognise(self, authorization: str, address: str) -> str | Unknown:
        """The actor of a request.

        Args:
            authorization: The header; "" for none.
            address: Of the client: wrong tokens are counted by it.

        Raises:
            OperationError: The database did not answer.
        """
        secret = _secret(authorization)
        if not secret:
            return _NOBODY
        presented = digest(secret)
        refused = self._ask(address, presented)
        if refused is None and hmac.compare_digest(presented, self._admin):
            self._limit.opened(presented)
            return ADMIN
        async with self._one_at_a_time:
            name, until = self._known.get(presented, ("", 0.0))
            if self._clock.monotonic() < until:
                return name
            refused = self._ask(address, presented)
            if refused is not None:
                return refused
            found = await self._look_up(presented, address)
        if found is None:
            return _NOBODY
        await self._note_use(found)
        return found.name

    def forget(self, sha256: str) -> None:
        """A token was revoked: from here on it opens nothing."""
        self._forgotten += 1
        self._known.pop(sha256, None)
        self._limit.closed(sha256)

    def _ask(self, address: str, presented: str) -> Unknown | None:
        now_s = self._clock.monotonic()
        match self._limit.ask(address, presented, now_s):
            case Verdict.JUDGE:
                return None
            case Verdict.REFUSE:
                return _NOBODY
            case Verdict.WAIT:
                wait_s = math.ceil(self._limit.wait_s(address, now_s))
                detail = f"too many wrong tokens came from this address; try again in {wait_s} s"
                return Unknown(429, detail, {"Retry-After": str(wait_s)})

    async def _look_up(self, presented: str, address: str) -> Token | None:
        before = self._forgotten
        found = await self._db.look(partial(tokens.live, sha256=presented))
        now_s = self._clock.monotonic()
        if found is None:
            self._limit.failed(address, presented, now_s)
            log.warning("wrong token refused", address=address)
        elif self._forgotten == before:
            self._limit.opened(presented)
            self._known[presented] = (found.name, now_s + KNOWN_FOR_S)
        return found

    async def _note_use(self, token: Token) -> None:
        now = self._clock.now()
        if token.last_used_at is not None and now - token.last_used_at < USE_NOTED_EVERY:
            return
        try:
            await self._db.write(partial(tokens.note_use, sha256=token.sha256, now=now))
        except OperationError as error:  # who may only read from a full disk may still read
            log.warning("use of a token not noted", name=token.name, why=str(error))


def _secret(authorization: str) -> bytes:
    if not authorization.lower().startswith(_BEARER):
        return b""
    return authorization[len(_BEARER) :].strip().encode("latin-1", "replace")
