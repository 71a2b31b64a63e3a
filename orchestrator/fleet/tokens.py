"""Named tokens of operators: made, revoked. A name stands in events as the actor; the token itself is shown once."""

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import ConflictError, NotAllowedError, NotFoundError, UsageError
from orchestrator.model.actor import ADMIN, RESERVED, TOKEN_PREFIX, looks_like_token
from orchestrator.storage import events, tokens
from orchestrator.storage.database import Database
from orchestrator.storage.tokens import Token
from protocol.clock import Clock

_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class Made:
    """A new token, and the only time that it is seen."""

    token: Token
    secret: str

    def __repr__(self) -> str:
        """Without the secret: it may come into a log."""
        return f"Made({self.token.name})"


def digest(secret: bytes) -> str:
    """What is kept of a token: SHA-256 in hex. It has 256 random bits, so no slow hash is needed."""
    return hashlib.sha256(secret).hexdigest()


async def create(db: Database, clock: Clock, name: str, *, actor: str) -> Made:
    """Make a token. A name whose token was revoked gets a new one and stays the same actor.

    Raises:
        NotAllowedError: The actor is not the admin.
        UsageError: The name is reserved, or looks like a token.
        ConflictError: The name has a token, or another one differs from it only in capitals.
    """
    _check_admin(actor)
    _check_name(name)
    secret, now = TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES), clock.now()
    made = Token(name=name, sha256=digest(secret.encode()), created_at=now, created_by=actor)
    async with db.begin() as conn:
        found = await tokens.alike(conn, name)
        if found is not None and found.name != name:
            raise ConflictError(f"token {name}: there is {found.name}, which people take for the same; name another")
        if found is not None and found.revoked_at is None:
            raise ConflictError(f"token {name}: exists; revoke it with 'flagship token revoke {name}' for a new one")
        await tokens.put(conn, made)
        text = f"{name}: token created" if found is None else f"{name}: token created in place of the revoked one"
        await events.add_order(conn, "token_created", text, now, actor=actor)
    return Made(made, secret)


async def revoke(db: Database, clock: Clock, name: str, *, actor: str) -> Token:
    """The token opens nothing from now on. A second time changes nothing.

    Raises:
        NotAllowedError: The actor is not the admin.
        NotFoundError: There is no such token.
    """
    _check_admin(actor)
    now = clock.now()
    async with db.begin() as conn:
        found = await _get(conn, name)
        if found.revoked_at is not None:
            return found
        await tokens.revoke(conn, name, now)
        await events.add_order(conn, "token_revoked", f"{name}: token revoked", now, actor=actor)
        return await _get(conn, name)


async def _get(conn: AsyncConnection, name: str) -> Token:
    found = await tokens.get(conn, name)
    if found is None:
        raise NotFoundError(f"token {name}: there is none of that name; 'flagship token list' names them")
    return found


def _check_admin(actor: str) -> None:
    if actor != ADMIN:
        raise NotAllowedError(
            f"tokens: only the home's admin token makes and revokes them, and this is that of {actor}"
        )


def _check_name(name: str) -> None:
    if looks_like_token(name):
        raise UsageError(
            f"token: a name does not begin with {TOKEN_PREFIX!r}, as tokens do; give the name, never a token"
        )
    if name.lower() in RESERVED:
        raise UsageError(f"token {name}: the name is reserved; name who will use the token")
