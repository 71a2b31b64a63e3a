"""A broker holds what is needed, within its budget: releases are brought, those that nobody needs are cleared.

    needed and not whole -> fits? -> bring, page by page         not needed -> clear, page by page -> cleared
                              no -> refused, or its pieces alone (mirrors-only) until there is room

What is needed is asked of the rows at every step, so nothing has to be told when a rollout begins or ends.
"""

from collections.abc import Sequence
from datetime import timedelta

import structlog

from orchestrator.config_brokers import BrokerSettings, ChunkSettings
from orchestrator.delivery.chunk_publishing import PAGE, ChunkPublishing
from orchestrator.errors import OperationError, UnreachableError
from orchestrator.metrics import Metrics
from orchestrator.storage import chunk_keeping, events, releases
from orchestrator.storage.chunk_keeping import Held, Keeping
from orchestrator.storage.database import Database
from protocol.clock import Clock
from protocol.mqtt.connection import Session

log = structlog.get_logger(__name__)

STEP = 64
"""Chunks of one step; devices' wants are looked at between two."""
RETRY = timedelta(seconds=60)
"""After what did not work."""
CLEAR_AGAIN_S = 30.0
NAMED = 3
"""Releases that a refusal names as leaving."""


class ChunkUpkeep:
    """One broker's releases."""

    def __init__(
        self, db: Database, broker: BrokerSettings, settings: ChunkSettings, chunks: ChunkPublishing, metrics: Metrics,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._db = db
        self._broker = broker
        self._keeping = Keeping(timedelta(seconds=settings.kept_s), timedelta(seconds=settings.grace_s))
        self._chunks = chunks
        self._metrics = metrics
        self._clock = clock
        self._at = ("", "")  # (release that is being brought, last cid of it)
        self._clear_at = 0.0

    async def bring(self, session: Session, release: str) -> int:
        """Bring a release whole, now and at once; or its pieces, where it does not fit and the broker allows that.

        Returns:
            Ciphertext bytes that were sent.

        Raises:
            ConnectionLost: Calling again goes on from there.
            OperationError: It does not fit, the store has lost a chunk, or the broker does not retain.
        """
        refusal = await self._refusal(release)
        if refusal:
            sent = await self._without_room(session, release, refusal)
            if self._broker.beyond_budget == "refuse":
                raise OperationError(refusal)
            return sent
        sent, after = 0, ""
        while page := await self._chunks.missing_page(release, after):
            after = page[-1][0]
            sent += await self._chunks.publish_page(session, release, page)
        await self._whole(release)
        return sent

    async def is_needed(self, release: str) -> bool:
        """Whether the broker shall hold a release."""
        async with self._db.read() as conn:
            return await chunk_keeping.is_needed(conn, self._broker.name, release, self._keeping, self._clock.now())

    async def step(self, session: Session) -> int | None:
        """Do one piece of what is to be done; bytes that were sent for it, None when nothing is to be done.

        Raises:
            ConnectionLost: It is done again.
            UnreachableError: The broker does not retain.
        """
        free_bytes = max(0, self._broker.max_retained_bytes - self._chunks.retained_bytes)
        async with self._db.read() as conn:
            now = self._clock.now()
            release = await chunk_keeping.next_to_bring(conn, self._broker.name, self._keeping, now, free_bytes)
        if release is not None:
            return await self._bring_some(session, release)
        if self._clock.monotonic() >= self._clear_at and await self._clear_some(session):
            return 0
        return None

    async def _bring_some(self, session: Session, release: str) -> int:
        after = self._at[1] if self._at[0] == release else ""
        if not after and (refusal := await self._refusal(release)):
            return await self._without_room(session, release, refusal)
        page = (await self._chunks.missing_page(release, after))[:STEP]
        if not page:
            self._at = ("", "")
            if not await self._chunks.missing_bytes(release):
                await self._whole(release)
            return 0
        try:
            sent = await self._chunks.publish_page(session, release, page)
        except UnreachableError:
            raise
        except OperationError as error:
            log.error("release not brought", broker=self._broker.name, release=release, why=str(error))
            self._at = ("", "")
            await self._wait(release, str(error), 0)
            return 0
        self._at = (release, page[-1][0])
        return sent

    async def _whole(self, release: str) -> None:
        name = self._broker.name
        async with self._db.begin() as conn:
            before = (await chunk_keeping.on_brokers(conn, [release])).get(release, [])
            await chunk_keeping.set_held(conn, name, release, Held.WHOLE)
            await chunk_keeping.reconsider(conn, name)
            if any(row.broker == name and row.state in (Held.CLEARED, Held.MIRRORS_ONLY) for row in before):
                text = f"release {release}: its chunks are on broker {name} again"
                await events.add(conn, "release_brought", text, self._clock.now())
        log.info("release whole on broker", broker=name, release=release, retained_bytes=self._chunks.retained_bytes)

    async def _refusal(self, release: str) -> str:
        """Why a release does not fit, with figures; "" where it does."""
        missing = await self._chunks.missing_bytes(release)
        held, budget = self._chunks.retained_bytes, self._broker.max_retained_bytes
        if held + missing <= budget:
            return ""
        name = self._broker.name
        async with self._db.read() as conn:
            leaving = await chunk_keeping.leaving(conn, name, self._keeping)
        return (
            f"broker {name}: release {release} needs {missing} B more, {held} B of {budget} B are in use; "
            f"{_leaving(leaving, release)}; raise max_retained_bytes of the broker, or set its beyond_budget "
            "to mirrors-only"
        )

    async def _without_room(self, session: Session, release: str, refusal: str) -> int:
        """Say that it does not fit; where mirrors are allowed, its pieces stand on the broker all the same."""
        if self._broker.beyond_budget == "refuse":
            await self._wait(release, refusal, await self._chunks.missing_bytes(release))
            return 0
        sent, after = 0, ""
        async with self._db.read() as conn:
            record = await releases.get(conn, release)
        pieces = frozenset(record.info.get("pieces", ())) if record else frozenset()
        while pieces and (page := await self._chunks.missing_page(release, after)):
            after = page[-1][0]
            sent += await self._chunks.publish_page(session, release, [item for item in page if item[0] in pieces])
        missing = await self._chunks.missing_bytes(release)
        async with self._db.begin() as conn:
            await chunk_keeping.set_held(
                conn, self._broker.name, release, Held.MIRRORS_ONLY, missing_bytes=missing, why=refusal
            )
        log.warning("release on mirrors only", broker=self._broker.name, release=release, missing_bytes=missing)
        return sent

    async def _wait(self, release: str, why: str, missing_bytes: int) -> None:
        """Try again later; how much stands there stays as it is."""
        name = self._broker.name
        async with self._db.begin() as conn:
            rows = (await chunk_keeping.on_brokers(conn, [release])).get(release, [])
            state = next((row.state for row in rows if row.broker == name), Held.LACKING)
            await chunk_keeping.set_held(
                conn, name, release, state, missing_bytes=missing_bytes, why=why, retry_at=self._clock.now() + RETRY
            )

    async def _clear_some(self, session: Session) -> bool:
        name, now = self._broker.name, self._clock.now()
        async with self._db.begin() as conn:
            release = await chunk_keeping.next_to_clear(conn, name, self._keeping, now)
            if release is None:
                return False
            page = await chunk_keeping.page_to_clear(
                conn, name, self._chunks.prefix, release, self._keeping, now, min(STEP, PAGE)
            )
            # Before anything goes: who rolls it out now finds it as not whole, and has it brought.
            await chunk_keeping.set_held(conn, name, release, Held.CLEARING if page else Held.CLEARED)
            if not page:
                await chunk_keeping.reconsider(conn, name)
        if not page:
            log.info("release cleared", broker=name, release=release, retained_bytes=self._chunks.retained_bytes)
            return True
        gone = await self._chunks.clear(session, page, self._clock.now())
        self._metrics.add_cleared(name, gone)
        if gone < len(page):
            log.warning("chunks not cleared", broker=name, release=release, chunks=len(page) - gone)
            self._clear_at = self._clock.monotonic() + CLEAR_AGAIN_S
        return True


def _leaving(found: Sequence[tuple[object, str]], release: str) -> str:
    named = [f"{name} after {at:%Y-%m-%dT%H:%MZ}" for at, name in found if name != release][:NAMED]
    return f"may be cleared by itself: {', '.join(named)}" if named else "every release there is in use by a rollout"
