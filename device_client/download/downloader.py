"""A download, from what is staged already to what is verified as a whole.

It does not give up by itself: silence, loss and tampering cost time, and the caller cancels when an offer's time is
over.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random

import structlog

from device_client.download.base_stream import Base
from device_client.download.lanes import DownloadSettings, Listeners, Run, Transfer
from device_client.download.pieces import PieceStore
from device_client.download.source_set import SourceSet
from device_client.download.sources import ChunkSource
from device_client.download.store import ArtifactStore, Store
from protocol.errors import ContentError, ErrorCode
from protocol.manifest import Artifact

__all__ = ["DownloadSettings", "Listeners", "Transfer", "fetch", "fetch_artifact", "fetch_pieces"]

log = structlog.get_logger(__name__)


async def fetch_artifact(
    staging: Path,
    artifact: Artifact,
    source: ChunkSource | SourceSet,
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
        source = SourceSet.of(source, random)
        transfer = await fetch(store, source, settings, listeners, random)
        await source.release()
        try:
            return await asyncio.to_thread(store.complete), transfer
        except ContentError as error:
            if error.code is not ErrorCode.CHUNK:
                raise
            log.warning("stream_damaged", detail=error.detail)
        # What was written was damaged on the disk since: hash again, and fetch what that finds.
        transfer = await fetch(store, source, settings, listeners, random)
        await source.release()
        return await asyncio.to_thread(store.complete), transfer
    finally:
        store.close()


async def fetch_pieces(
    staging: Path,
    pieces: Sequence[str],
    length: int,
    sha256: str,
    source: ChunkSource | SourceSet,
    settings: DownloadSettings,
    listeners: Listeners,
    random: Random,
) -> tuple[bytes, Transfer]:
    """Fetch a sealed manifest; ``pieces``, ``length`` and ``sha256`` as the release names them.

    The source is not released, so that the chunks can be asked for at once.

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
    source: ChunkSource | SourceSet,
    settings: DownloadSettings,
    listeners: Listeners,
    random: Random,
) -> Transfer:
    """Fetch what ``store`` misses; returns when all of it is verified and written (``store.complete`` comes next).

    Raises:
        ContentError: E_SPACE: the disk is full. What was written stays.
    """
    missing = await asyncio.to_thread(store.resume)
    run = Run(store, SourceSet.of(source, random), settings, listeners, missing, random)
    listeners.progress(run.transfer())
    # In a task of its own: what a TaskGroup does to the task that it fails in would stay with the caller.
    await asyncio.create_task(run.whole())
    return run.transfer()
