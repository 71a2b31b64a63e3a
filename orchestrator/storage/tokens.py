"""Named tokens: who may speak to the API under which name. Only digests are here; nobody can read a token out of it."""

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage.token_tables import tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One name and the digest of its token.

    Attributes:
        sha256: In hex.
        last_used_at: To the hour.
    """

    name: str
    sha256: str
    created_at: datetime
    created_by: str
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


async def put(conn: AsyncConnection, token: Token) -> None:
    """Add a name, or give one a new token in place of its former one."""
    values = asdict(token)
    await conn.execute(upsert(tokens).values(**values).on_conflict_do_update(index_elements=["name"], set_=values))


async def alike(conn: AsyncConnection, name: str) -> Token | None:
    """The token of this name, or of one that differs only in capitals: people take both for one."""
    query = select(tokens).where(func.lower(tokens.c.name) == name.lower())
    row = (await conn.execute(query)).mappings().first()
    return None if row is None else Token(**row)


async def get(conn: AsyncConnection, name: str) -> Token | None:
    """The token of exactly this name."""
    row = (await conn.execute(select(tokens).where(tokens.c.name == name))).mappings().first()
    return None if row is None else Token(**row)


async def live(conn: AsyncConnection, sha256: str) -> Token | None:
    """The token with this digest, unless it was revoked."""
    query = select(tokens).where(tokens.c.sha256 == sha256, tokens.c.revoked_at.is_(None))
    row = (await conn.execute(query)).mappings().first()
    return None if row is None else Token(**row)


async def page(conn: AsyncConnection, *, after: str = "", limit: int = 100) -> list[Token]:
    """Tokens by name, revoked ones too, beginning behind ``after``."""
    rows = await conn.execute(select(tokens).where(tokens.c.name > after).order_by(tokens.c.name).limit(limit))
    return [Token(**row) for row in rows.mappings()]


async def revoke(conn: AsyncConnection, name: str, now: datetime) -> None:
    """It opens nothing from now on."""
    await conn.execute(update(tokens).where(tokens.c.name == name).values(revoked_at=now))


async def note_use(conn: AsyncConnection, sha256: str, now: datetime) -> None:
    """It was used."""
    await conn.execute(update(tokens).where(tokens.c.sha256 == sha256).values(last_used_at=now))
