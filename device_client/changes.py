"""What changes the device: install, activate, prove, commit, go back. One step at a time, each safe to repeat.

A step that ends well returns; one that does not raises, and whoever asked for it makes an event of that. What cannot be
undone any more is not given up: its note is tried until the disk takes it.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from device_client.agent.journal import Update
from device_client.config_installers import InstallerSection
from device_client.installers.installer import Installer, InstallError, Next, Running
from device_client.last_outcome import LastOutcome
from device_client.last_update import LastUpdate
from device_client.programs import run_program
from device_client.shutdown_lock import ShutdownLock
from device_client.transfer import Fetcher
from device_client.verification.files import check_tree
from device_client.verification.release import Verifier
from device_client.verification.running import HealthResult, run_health
from protocol.directives import ReleaseRef
from protocol.errors import ContentError, ErrorCode, FlagshipError
from protocol.executables import ExecutableList
from protocol.manifest import Artifact
from protocol.trust.trusted import ReleaseTarget

log = structlog.get_logger(__name__)

RETRY_S = 1.0
ROLL_BACK_TRIES = 3
REBOOT_ORDER_S = 60.0
"""How long the program that orders a reboot may take."""


class Changes:
    """One device's software, and the ways to change it."""

    def __init__(
        self,
        settings: InstallerSection,
        verifier: Verifier,
        installer: Installer,
        last_update: LastUpdate,
        fetcher: Fetcher,
        *,
        lock: ShutdownLock | None = None,
        last_outcome: LastOutcome | None = None,
    ) -> None:
        """Name the rooms; ``lock`` is held during each step that must not be cut off, not over a reboot of our own."""
        self._settings = settings
        self._verifier = verifier
        self._installer = installer
        self._last_update = last_update
        self._fetcher = fetcher
        self._lock = lock or ShutdownLock()
        self._last_outcome = last_outcome

    def runs(self, ref: ReleaseRef) -> bool:
        """Whether this very release is the active one; False where that cannot be told. Blocking."""
        try:
            running = self._installer.running()
        except (FlagshipError, OSError) as error:
            log.error("running version unknown", why=str(error)[:500])
            return False
        return running is not None and running.digest == ref.sha256

    def running_version(self) -> str | None:
        """What runs now, for reports. Blocking."""
        running = self._installer.running()
        return running.version if running else None

    def begin_idle(self) -> None:
        """Return to the former version if one is on trial, and clear staging; never raises. Blocking.

        Without a journal nobody knows whether what is on trial was verified.
        """
        try:
            if self._installer.status().pending is not None:
                after = self._installer.rollback()
                log.error("trial without a journal given up", running=self.running_version(), then=after.value)
                if after is Next.REBOOT:
                    asyncio.run(self._reboot_for(after))
            self._fetcher.clear()
        except (FlagshipError, OSError) as error:
            log.error("leftovers of an update without a journal stay", why=str(error)[:500])

    async def install(self, update: Update) -> None:
        """Ask the offline keys once more, then write the release beside the running one and compare it."""
        target = await asyncio.to_thread(self._verifier.check, update.offer.release, update.offer.attempt)
        async with self._lock.held(f"installing {update.version}"):
            await asyncio.to_thread(self._install, update, target)

    async def activate(self, update: Update) -> None:
        """Ask the offline keys once more, then switch."""
        await asyncio.to_thread(self._verifier.check, update.offer.release, update.offer.attempt)
        # Before it: a loop of releases that roll back is held off by the same interval.
        await asyncio.to_thread(self._last_update.note, self._verifier.now())
        async with self._lock.held(f"activating {update.version}"):
            after = await asyncio.to_thread(self._installer.activate)
        await self._reboot_for(after)

    async def prove(self, update: Update, target: ReleaseTarget) -> HealthResult:
        """The running version, its files, then the maker's own check.

        Raises:
            ContentError: E_POSTINSTALL: what runs is not what was installed.
        """
        running = await asyncio.to_thread(self._proven_files, update, target)
        return await run_health(
            self._settings.health,
            self._settings.health_timeout_s,
            {"FLAGSHIP_RELEASE": str(running.path or ""), "FLAGSHIP_VERSION": update.version},
            _folder(running),
        )

    async def commit(self, update: Update) -> None:
        """Keep the new version; from then on there is no way back, and older code must never run again."""
        async with self._lock.held(f"committing {update.version}"):
            await asyncio.to_thread(self._installer.commit)
        await _until_noted(self._note_commit, update)

    async def return_to_former(self, update: Update) -> None:
        """Go back, and set the release aside if it failed.

        Raises:
            ContentError: E_INSTALL: what runs afterwards is not what ran before.
            DeviceError: There is no way back, or the disk fails for longer than a moment.
        """
        await self._roll_back()
        if update.code is not None:
            await _until_noted(self._note_failure, update)
        running = await asyncio.to_thread(self.running_version)
        if running != update.from_version:
            detail = f"{running or 'nothing'} runs, expected {update.from_version or 'nothing'}"
            raise ContentError(ErrorCode.INSTALL, detail)

    async def clean_up(self, update: Update) -> None:
        """Remove what was staged, and keep how it ended for whoever asks."""
        await asyncio.to_thread(self._fetcher.clear)
        log.info("staging cleared", rollout_id=update.offer.rollout)
        if self._last_outcome and update.is_over:
            await asyncio.to_thread(self._last_outcome.note, update, self._verifier.now())

    def _install(self, update: Update, target: ReleaseTarget) -> None:
        artifact, stream = self._fetcher.staged(update, target)
        place = self._installer.install(stream, artifact, target.info.version, target.sha256)
        self._compare(place, artifact, self._verifier.executables(artifact, target))

    def _proven_files(self, update: Update, target: ReleaseTarget) -> Running:
        running = self._installer.running()
        if running is None or running.digest != update.offer.release.sha256:
            raise ContentError(ErrorCode.POSTINSTALL, f"{update.version} is not what runs")
        artifact, _ = self._fetcher.staged(update, target)
        self._compare(running.path, artifact)
        return running

    def _compare(self, place: Path | None, artifact: Artifact, listed: ExecutableList | None = None) -> None:
        """What lies there with the manifest; what no file system shows, the installer compares itself."""
        if place is not None:
            check_tree(place, artifact, listed)
        elif fault := self._installer.fault():
            raise ContentError(ErrorCode.POSTINSTALL, fault)

    async def _reboot_for(self, after: Next) -> None:
        """Reboot where the change needs it. This process ends with the reboot; the journal knows where to go on."""
        if after is Next.NOTHING:
            return
        reboot = self._settings.reboot
        log.warning("rebooting", program=reboot[0])
        ended = await run_program(reboot, REBOOT_ORDER_S, {}, what="reboot")
        if not ended.ok:
            raise InstallError(ended.detail, ended.log)
        await asyncio.sleep(self._settings.reboot_timeout_s)
        raise InstallError(f"the device did not reboot within {self._settings.reboot_timeout_s:g} s of {reboot[0]}")

    async def _roll_back(self) -> None:
        for left in reversed(range(ROLL_BACK_TRIES)):
            try:
                async with self._lock.held("going back to the former version"):
                    after = await asyncio.to_thread(self._installer.rollback)
                await self._reboot_for(after)
                return
            except (FlagshipError, OSError) as error:
                if not left:
                    raise
                log.error("not rolled back yet", why=str(error)[:500], retry_s=RETRY_S)
            await asyncio.sleep(RETRY_S)

    def _note_commit(self, update: Update) -> None:
        self._verifier.committed(update.component, update.offer.release.counter)
        self._last_update.note(self._verifier.now())

    def _note_failure(self, update: Update) -> None:
        self._verifier.set_aside(update.offer.release.sha256, update.offer.attempt)


def _folder(running: Running) -> Path | None:
    if running.path is None:
        return None
    return running.path if running.path.is_dir() else running.path.parent


async def _until_noted(note: Callable[[Update], None], update: Update) -> None:
    while True:
        try:
            await asyncio.to_thread(note, update)
            return
        except (FlagshipError, OSError) as error:
            log.error("not noted yet", state=update.state.value, why=str(error)[:500], retry_s=RETRY_S)
        await asyncio.sleep(RETRY_S)
