"""The loop of a download: ask for a window, verify and write the one before meanwhile, ask again for what is missing.

At most two windows are in memory, the one that is arriving and the one that is being written, whatever the image's
size. Decryption, decompression and disk writes of a whole window are one hop to a thread. It does not give up by
itself: silence, loss and tampering cost time, and the caller cancels when an offer's time is over.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import structlog

from device_client.config import DownloadSection, TimingSection
from device_client.download.base_stream import Base
from device_client.download.pieces import PieceStore
from device_client.download.planner import Plan, Window, WindowLimits
from device_client.download.sources import ChunkSource
from device_client.download.store import ArtifactStore, Refusal, Store
from protocol.errors import ContentError, ErrorCode, FlagshipError
from protocol.manifest import Artifact

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far a download is.

    Attributes:
        present_bytes: Verified bytes on the disk, of ``total_bytes``; as they will be installed.
        fetched_bytes: Ciphertext bytes that came in this run and were verified.
        resumed_bytes: Verified bytes that were there when this run began.
        refused: Chunks in this run that were not what was signed.
        copied_bytes: Verified bytes that were copied in this run from what the device runs.
        delta_bytes: Those of ``fetched_bytes`` that were deltas against what the device runs.
    """

    present_bytes: int
    total_bytes: int
    fetched_bytes: int
    resumed_bytes: int
    refused: int
    copied_bytes: int = 0
    delta_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DownloadSettings:
    """Bounds and times of a download."""

    window: int = 16
    max_window: int = 64
    window_bytes: int = 2**20
    rate_limit_bytes_s: int = 0
    chunk_timeout_s: float = 5.0
    retry_base_s: float = 1.0
    retry_cap_s: float = 60.0

    @classmethod
    def of(cls, download: DownloadSection, timing: TimingSection) -> "DownloadSettings":
        """From the two sections of ``device.toml``."""
        return cls(
            window=download.window,
            max_window=download.max_window,
            window_bytes=download.window_bytes,
            rate_limit_bytes_s=download.rate_limit_bytes_s,
            chunk_timeout_s=timing.chunk_timeout_s,
            retry_base_s=timing.connect_backoff_s,
            retry_cap_s=timing.connect_backoff_cap_s,
        )


async def _want_nothing(cids: tuple[str, ...]) -> None:
    """For callers who have no one to tell."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told.

    Attributes:
        progress: After each window that was written, and at the start.
        want: Chunk ids that did not come twice, or came wrong; at most a window of them.
        refused: Code and detail of a chunk that was not what was signed.
    """

    progress: Callable[[Transfer], None] = lambda _transfer: None
    want: Callable[[tuple[str, ...]], Awaitable[None]] = _want_nothing
    refused: Callable[[ErrorCode, str], None] = lambda _code, _detail: None


async def fetch_artifact(
    staging: Path,
    artifact: Artifact,
    source: ChunkSource,
    settings: DownloadSettings,
    listeners: Listeners,
    random: Random,
    base: Base | None = None,
) -> tuple[Path, Transfer]:
    """Fetch an artifact's stream; what an earlier run left in ``staging`` is verified and kept.

    Args:
        base: What the device runs: copied from, and deltas are applied to it.

    Returns:
        The file of the stream, durable and with the hash that was signed, and what it took.

    Raises:
        ContentError: E_SPACE: the disk is full; E_CHUNK: the chunks do not make the stream; E_FORMAT: bad manifest.
    """
    store = await asyncio.to_thread(ArtifactStore, staging, artifact, base)
    try:
        transfer = await fetch(store, source, settings, listeners, random)
        try:
            return await asyncio.to_thread(store.complete), transfer
        except ContentError as error:
            if error.code is not ErrorCode.CHUNK:
                raise
            log.warning("stream_damaged", detail=error.detail)
        # What was written was damaged on the disk since: hash again, and fetch what that finds.
        transfer = await fetch(store, source, settings, listeners, random)
        return await asyncio.to_thread(store.complete), transfer
    finally:
        store.close()


async def fetch_pieces(
    staging: Path,
    pieces: Sequence[str],
    length: int,
    sha256: str,
    source: ChunkSource,
    settings: DownloadSettings,
    listeners: Listeners,
    random: Random,
) -> tuple[bytes, Transfer]:
    """Fetch a sealed manifest; ``pieces``, ``length`` and ``sha256`` as the release names them.

    Returns:
        The sealed manifest, with the hash that was signed, and what it took.

    Raises:
        ContentError: E_SPACE, E_CHUNK, or E_FORMAT and E_OVERSIZE where the release names something that cannot be.
    """
    store = await asyncio.to_thread(PieceStore, staging, pieces, length, sha256)
    try:
        transfer = await fetch(store, source, settings, listeners, random)
        return await asyncio.to_thread(store.complete), transfer
    finally:
        store.close()


async def fetch(
    store: Store,
    source: ChunkSource,
    settings: DownloadSettings,
    listeners: Listeners,
    random: Random,
) -> Transfer:
    """Fetch what ``store`` misses; returns when all of it is verified and written (``store.complete`` comes next).

    Raises:
        ContentError: E_SPACE: the disk is full. What was written stays.
    """
    missing = await asyncio.to_thread(store.resume)
    limits = WindowLimits(
        settings.window,
        settings.max_window,
        settings.window_bytes,
        settings.retry_base_s,
        settings.retry_cap_s,
    )
    resumed = store.present_bytes - store.copied_bytes
    run = _Run(store, source, settings, listeners, Plan(missing, limits, random), resumed)
    listeners.progress(run.transfer())
    try:
        async with asyncio.TaskGroup() as group:
            await run.loop(group)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    await source.release()
    return run.transfer()


@dataclass(slots=True)
class _Run:
    store: Store
    source: ChunkSource
    settings: DownloadSettings
    listeners: Listeners
    plan: Plan
    resumed_bytes: int
    fetched_bytes: int = 0
    refused: int = 0
    arrived_bytes: int = 0
    started: float = field(default_factory=time.monotonic)

    def transfer(self) -> Transfer:
        return Transfer(
            self.store.present_bytes,
            self.store.total_bytes,
            self.fetched_bytes,
            self.resumed_bytes,
            self.refused,
            self.store.copied_bytes,
            self.store.delta_bytes,
        )

    async def loop(self, group: asyncio.TaskGroup) -> None:
        writing: asyncio.Task[list[Refusal]] | None = None
        held: Mapping[str, bytes] = {}
        while not self.plan.done:
            window = self.plan.next_window(time.monotonic(), held)
            if window is None and writing is None:
                await asyncio.sleep(max(0.0, (self.plan.next_due() or 0.0) - time.monotonic()))
                continue
            arrived = await self._collect(window) if window else {}
            if writing is not None:
                await self._settle(held, await writing)
            held, writing = arrived, None
            if arrived:
                writing = group.create_task(asyncio.to_thread(self.store.write, arrived))
            await self._pace()

    async def _collect(self, window: Window) -> dict[str, bytes]:
        await self.source.ready()
        collected = await self.source.collect(window.cids, self.settings.chunk_timeout_s * window.patience)
        arrived = collected.chunks
        self.arrived_bytes += sum(len(payload) for payload in arrived.values())
        absent = [cid for cid in window.cids if cid not in arrived]
        if not absent:
            self.plan.came(window)
        elif not collected.gone:
            log.info("chunks_lost", lost=len(absent), asked=len(window.cids))
            await self._want(self.plan.lost(absent, time.monotonic()))
        return arrived

    async def _settle(self, written: Mapping[str, bytes], refusals: list[Refusal]) -> None:
        bad = {refusal.cid for refusal in refusals}
        good = [cid for cid in written if cid not in bad]
        self.plan.verified(good)
        self.fetched_bytes += sum(len(written[cid]) for cid in good)
        for refusal in refusals:
            if refusal.instead:  # it came as it was signed and was of no use: nobody's attack
                log.info("delta_useless", detail=refusal.detail)
                self.plan.replace(refusal.cid, dict(refusal.instead))
                continue
            self.refused += 1
            log.warning("chunk_refused", code=refusal.code, detail=refusal.detail)
            self.listeners.refused(refusal.code, refusal.detail)
        await self._want(self.plan.refused(bad, time.monotonic()))
        self.listeners.progress(self.transfer())

    async def _want(self, cids: tuple[str, ...]) -> None:
        if not cids:
            return
        try:
            await self.listeners.want(cids)
        except FlagshipError as error:  # a hint; the download goes on without it
            log.info("want_failed", detail=str(error), chunks=len(cids))

    async def _pace(self) -> None:
        if self.settings.rate_limit_bytes_s:
            due = self.started + self.arrived_bytes / self.settings.rate_limit_bytes_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
