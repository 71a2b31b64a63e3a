"""The loop of a download: two lanes ask for windows in turn, and what came of one is written meanwhile.

While one window arrives the next is on its way already, so the link is never idle for a round trip. At most three
windows are in memory, one in each lane and one that is being written, whatever the image's size.
Decryption, decompression and disk writes of a whole window are one hop to a thread.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import Random

import structlog

from device_client.config import DownloadSection, TimingSection
from device_client.download.pace import Pace
from device_client.download.planner import Plan, Window, WindowLimits
from device_client.download.source_set import SourceSet, Supplied
from device_client.download.store import Store
from protocol.errors import ErrorCode, FlagshipError
from protocol.mqtt.connection import backoff

log = structlog.get_logger(__name__)

LANES = 2
"""Windows that are out at once: while one arrives, the next one's request is on its way."""


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
    window_bytes: int = 4 * 2**20
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


class Run:
    """One download under way."""

    def __init__(
        self,
        store: Store,
        source: SourceSet,
        settings: DownloadSettings,
        listeners: Listeners,
        missing: Mapping[str, int],
        random: Random,
    ) -> None:
        """Make it; ``missing`` is what ``store.resume`` found: ciphertext bytes by chunk id, in the order to fetch."""
        self._store = store
        self._source = source
        self._settings = settings
        self._listeners = listeners
        limits = WindowLimits(
            settings.window,
            settings.max_window,
            settings.window_bytes,
            settings.retry_base_s,
            settings.retry_cap_s,
        )
        self._plan = Plan(missing, limits, random)
        self._random = random
        self._pace = Pace(settings.rate_limit_bytes_s)
        self._changed = asyncio.Event()
        self._writing = asyncio.Semaphore(1)
        self._resumed_bytes = store.present_bytes - store.copied_bytes
        self._fetched_bytes = 0
        self._refused = 0

    def transfer(self) -> Transfer:
        """How far it is."""
        return Transfer(
            self._store.present_bytes,
            self._store.total_bytes,
            self._fetched_bytes,
            self._resumed_bytes,
            self._refused,
            self._store.copied_bytes,
            self._store.delta_bytes,
        )

    async def whole(self) -> None:
        """Run all lanes until everything is verified."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(LANES):
                    group.create_task(self._lane(group))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _lane(self, group: asyncio.TaskGroup) -> None:
        in_vain = 0
        while not self._plan.done:
            window = self._plan.next_window(time.monotonic(), self._window_bytes())
            if window is None:
                await self._wait_for_news()
                continue
            await self._source.ready()
            await asyncio.sleep(self._pace.take(window.size_bytes, time.monotonic()))
            supplied = await self._source.collect(window.cids, self._settings.chunk_timeout_s * window.patience)
            await self._account(window, supplied)
            if supplied.chunks:
                await self._writing.acquire()
                group.create_task(self._write(supplied))
            in_vain = in_vain + 1 if len(supplied.unsent) == len(window.cids) else 0
            if in_vain > 1:  # it says that it is ready, and is not
                await asyncio.sleep(self._backoff(in_vain - 1))

    def _window_bytes(self) -> int:
        return self._pace.window_bytes(self._source.window_bytes(self._settings.window_bytes))

    async def _wait_for_news(self) -> None:
        """Until a delayed chunk is due, or something was verified, refused or lost."""
        due = self._plan.next_due()
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due is None else max(0.0, due - time.monotonic())):
                await self._changed.wait()

    async def _account(self, window: Window, supplied: Supplied) -> None:
        if supplied.unsent:
            self._plan.unsent(supplied.unsent)
        if supplied.lost:
            log.info("chunks_lost", lost=len(supplied.lost), asked=len(window.cids))
            wanted = self._do_without(self._plan.lost(supplied.lost, time.monotonic()))
            self._changed.set()
            await self._want(wanted)
        elif supplied.unsent:
            self._changed.set()
        else:
            self._plan.came(window)

    async def _write(self, supplied: Supplied) -> None:
        try:
            refusals = await asyncio.to_thread(self._store.write, supplied.chunks)
        finally:
            self._writing.release()
        bad = {refusal.cid for refusal in refusals}
        good = [cid for cid in supplied.chunks if cid not in bad]
        self._plan.verified(good)
        self._source.settled(good)
        self._source.spoiled({refusal.cid for refusal in refusals if not refusal.instead}, supplied)
        self._fetched_bytes += sum(len(supplied.chunks[cid]) for cid in good)
        for refusal in refusals:
            if refusal.instead:  # it came as it was signed and was of no use: nobody's attack
                log.info("delta_useless", detail=refusal.detail)
                self._replace(refusal.cid, refusal.instead)
                continue
            self._refused += 1
            log.warning("chunk_refused", code=refusal.code, detail=refusal.detail)
            self._listeners.refused(refusal.code, refusal.detail)
        wanted = self._do_without(self._plan.refused(bad, time.monotonic()))
        self._changed.set()
        self._listeners.progress(self.transfer())
        await self._want(wanted)

    def _replace(self, cid: str, instead: tuple[tuple[str, int], ...]) -> None:
        self._plan.replace(cid, dict(instead))
        self._source.settled((cid,))

    def _do_without(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """Of what would be wanted, what nothing else can stand for: a delta is a short cut, its chunk will do."""
        needed: list[str] = []
        for cid in wanted:
            instead = self._store.without(cid)
            if instead:
                log.info("delta_not_had", cid=cid[:16])
                self._replace(cid, instead)
            else:
                needed.append(cid)
        return tuple(needed)

    async def _want(self, cids: tuple[str, ...]) -> None:
        if not cids:
            return
        try:
            await self._listeners.want(cids)
        except FlagshipError as error:  # a hint; the download goes on without it
            log.info("want_failed", detail=str(error), chunks=len(cids))

    def _backoff(self, attempt: int) -> float:
        return backoff(attempt, self._random, self._settings.retry_base_s, self._settings.retry_cap_s)
