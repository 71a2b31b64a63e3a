"""From an offer to verified bytes in staging: unwrap the key, fetch and open the sealed manifest, fetch the chunks.

What was staged is believed only as far as hashes hold, so every step starts over harmlessly after a cut.
"""

import asyncio
import base64
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Protocol

import structlog
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from device_client.agent.journal import Update
from device_client.config import DeviceSettings
from device_client.download.base_stream import Base
from device_client.download.downloader import DownloadSettings, Listeners, Transfer, fetch_artifact, fetch_pieces
from device_client.download.pieces import PieceStore
from device_client.download.progress import DownloadProgress, Standing
from device_client.download.source_set import SourceSet
from device_client.download.store import clear_staging, stream_path
from device_client.installed_stream import InstalledStream
from device_client.reporter import Reporter
from device_client.verification.release import Verifier
from protocol.encryption import open_manifest, unwrap_key
from protocol.errors import ContentError, ErrorCode, FlagshipError
from protocol.manifest import Artifact, Manifest
from protocol.trust.trusted import ReleaseTarget

log = structlog.get_logger(__name__)


class Sources(Protocol):
    """Where chunks come from."""

    async def present(self) -> SourceSet:
        """The set for a download that begins now."""
        ...


class Fetcher:
    """One device's staging area."""

    def __init__(
        self,
        staging: Path,
        settings: DeviceSettings,
        device: str,
        content_keys: Callable[[], Sequence[X25519PrivateKey]],
        verifier: Verifier,
        sources: Sources,
        reporter: Reporter,
        refused: Callable[[ErrorCode, str], None],
        random: Random,
        streams: Callable[[], Sequence[InstalledStream]] = tuple,
    ) -> None:
        """Name the rooms; ``streams`` tells what is in place to copy from. Blocking."""
        self._staging = staging
        self._settings = settings
        self._device = device
        self._content_keys = content_keys
        self._verifier = verifier
        self._sources = sources
        self._asked: SourceSet | None = None
        self._reporter = reporter
        self._refused = refused
        self._random = random
        self._streams = streams
        self._progress_at = 0.0
        self._hint: asyncio.Task[None] | None = None  # one at a time, and none outlives its transfer
        self._of: tuple[str, int, str] | None = None
        self.last: Transfer | None = None
        self.progress = DownloadProgress()

    @property
    def source(self) -> str:
        """Where chunks come from and why, for people; empty before the first."""
        return self._asked.says if self._asked else ""

    async def fetch(self, update: Update) -> int:
        """Stage everything that the offered release consists of.

        Returns:
            Ciphertext bytes that came over the network for it.

        Raises:
            ContentError: E_KEY, E_MISMATCH, E_SPACE or E_FORMAT.
        """
        target = await asyncio.to_thread(self._verifier.check, update.offer.release, update.offer.attempt)
        settings = DownloadSettings.of(self._settings.download, self._settings.timing)
        self._begin_progress(update)
        info, self._asked = target.info, await self._sources.present()
        source = self._asked
        try:
            sealed, _ = await fetch_pieces(
                self._staging,
                info.pieces,
                target.length,
                target.sha256,
                source,
                settings,
                self._listeners(update, self.progress.listed),
                self._random,
            )
            artifact = await asyncio.to_thread(self._open, sealed, update, target)
            base = await asyncio.to_thread(self._base)
            listeners = self._listeners(update, self.progress.moved)
            await fetch_artifact(self._staging, artifact, source, settings, listeners, self._random, base)
        finally:
            if self._hint:
                self._hint.cancel()
            await source.release()  # also where the download was cancelled
        await self._say_progress(update, self.progress.standing)
        return self.progress.standing.fetched_bytes

    def staged(self, update: Update, target: ReleaseTarget) -> tuple[Artifact, Path]:
        """The artifact and its verified stream, for installing. Blocking.

        Raises:
            ContentError: What was staged is gone or damaged.
        """
        artifact = self._artifact(update, target)
        return artifact, stream_path(self._staging, artifact)

    def clear(self) -> None:
        """Remove what was staged. Blocking."""
        clear_staging(self._staging)

    def _artifact(self, update: Update, target: ReleaseTarget) -> Artifact:
        pieces = PieceStore(self._staging, target.info.pieces, target.length, target.sha256)
        try:
            if pieces.resume():
                raise ContentError(ErrorCode.CHUNK, "sealed manifest: what was staged is damaged")
            sealed = pieces.complete()
        finally:
            pieces.close()
        return self._open(sealed, update, target)

    def _open(self, sealed: bytes, update: Update, target: ReleaseTarget) -> Artifact:
        try:
            wrap = base64.b64decode(update.offer.key_wrap or "", validate=True)
        except ValueError as error:
            raise ContentError(ErrorCode.KEY, "key wrap: not base64") from error
        cek = self._unwrap(wrap, target.sha256)
        manifest = Manifest.from_json(open_manifest(cek, sealed))
        if (manifest.product, manifest.version) != (target.info.product, target.info.version):
            raise ContentError(ErrorCode.MISMATCH, f"sealed manifest: it is of {manifest.product} {manifest.version}")
        mine = [a for a in manifest.artifacts if a.component == self._settings.device.component]
        if len(mine) != 1 or len(manifest.artifacts) != 1:
            found = ", ".join(a.component for a in manifest.artifacts)
            raise ContentError(
                ErrorCode.SOFTWARE, f"release: one artifact for {self._settings.device.component}, found {found}"
            )
        return mine[0]

    def _base(self) -> Base | None:
        try:
            return Base(self._streams())
        except (FlagshipError, OSError) as error:
            log.warning("nothing to copy from", why=str(error)[:500])
            return None

    def _unwrap(self, wrap: bytes, sha256: str) -> bytes:
        """Open an offer's key, with a former content key where it was wrapped before a renewal."""
        refused = ContentError(ErrorCode.KEY, "content key: this device has no key to open it")
        for key in self._content_keys():
            try:
                return unwrap_key(wrap, key, release=sha256, device=self._device)
            except ContentError as error:
                refused = error
        raise refused

    def _begin_progress(self, update: Update) -> None:
        of = (update.offer.rollout, update.offer.attempt, update.offer.release.sha256)
        if of == self._of:
            self.progress.again()
        else:
            self._of, self.progress = of, DownloadProgress(update.bytes_fetched)

    def _listeners(self, update: Update, moved: Callable[[Transfer, float], Standing]) -> Listeners:
        async def want(cids: tuple[str, ...]) -> None:
            await self._reporter.want(update.offer.rollout, list(cids))

        def progress(transfer: Transfer) -> None:
            self.last = transfer
            now = time.monotonic()
            standing = moved(transfer, now)
            if now < self._progress_at or (self._hint and not self._hint.done()):
                return
            self._progress_at = now + self._settings.timing.progress_interval_s
            self._hint = asyncio.create_task(self._say_progress(update, standing))

        return Listeners(progress=progress, want=want, refused=self._refused)

    async def _say_progress(self, update: Update, standing: Standing) -> None:
        try:
            await self._reporter.progress(update, standing)
        except Exception:  # a hint: its failure is nobody's
            log.exception("progress not said", rollout_id=update.offer.rollout)
