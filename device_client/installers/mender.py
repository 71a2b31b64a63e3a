"""A release that one of Mender's update modules puts in place.

    install    Download, SupportsRollback, ArtifactInstall, NeedsArtifactReboot
    activate   [ArtifactReboot or a reboot, ArtifactVerifyReboot]
    commit     ArtifactCommit, Cleanup
    rollback   mender_way_back

Most modules change the device in ``ArtifactInstall`` already. One that was cut off in it may have left anything: what
follows is ``ArtifactRollback``, before all else. A module that cannot go back and failed leaves a device of which
nobody can say what runs; ``running`` is None then, until the next release is in place.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from device_client.config import DeviceSection
from device_client.config_installers import MenderSection
from device_client.durable import explained
from device_client.errors import ConflictError, DeviceError
from device_client.installed_stream import InstalledStream
from device_client.installers.installer import InstallError, Next, Running, Status
from device_client.installers.mender_runs import ModuleRuns
from device_client.installers.mender_state import MenderState, ModuleState, ModuleUpdate, Reboot, Version
from device_client.installers.mender_tree import payloads_of
from device_client.installers.mender_way_back import WayBack
from device_client.installers.records import record_tree
from device_client.installers.slots import tree_digest
from device_client.trees import read_tree
from protocol.errors import ContentError
from protocol.identifiers import check_digest, check_version
from protocol.manifest import Artifact

log = structlog.get_logger(__name__)


class MenderInstaller:
    """Lets an update module do what other installers do themselves; see ``Installer``."""

    def __init__(
        self,
        place: Path,
        state: Path,
        settings: MenderSection,
        device: DeviceSection,
        boot_id: Callable[[], str],
        *,
        sync: Callable[[], None] = os.sync,
        root: Path = Path("/"),
    ) -> None:
        """Give the module a tree below ``place``, and note in the file ``state`` where it stands.

        Args:
            boot_id: Says which boot this is.
            sync: Makes all that the module wrote durable.
            root: Of the system that runs.
        """
        self._runs = ModuleRuns(place, state, settings, device, boot_id, sync)
        self._back = WayBack(self._runs, settings.module)
        self._name, self._root = settings.module, root
        self._one_at_a_time = threading.RLock()

    def install_factory(self, source: Path, version: str) -> Running:
        """Note that ``version`` runs, and a digest of what ``source`` holds; nothing is copied.

        Raises:
            NotFoundError: ``source`` does not exist.
            ConflictError: Another version runs already.
            StorageError: It cannot be read or noted.
        """
        check_version(version)
        running = self.running()
        if running is not None:
            if running.version == version:
                return running
            raise ConflictError(f"version {running.version} is installed already; {version} must come as a release")
        with explained(source, "read"):
            digest = tree_digest(record_tree(read_tree(source.resolve(strict=True)), version, ""))
        state = self._runs.load().model_copy(update={"running": Version(version=version, digest=digest)})
        self._runs.save(state)
        return Running(version, digest, None)

    def install(self, stream: Path, artifact: Artifact, version: str, digest: str) -> None:
        """Hand the release to the module; see ``Installer.install``.

        Raises:
            ConflictError: Another release is on trial, or its rollback waits for a reboot.
        """
        update = ModuleUpdate(version=check_version(version), digest=check_digest(digest))
        payloads = payloads_of(artifact)
        with self._one_at_a_time:
            if self._is_in_place(digest):
                return
            update = update.model_copy(update={"payloads": [payload.sha256 for payload in payloads]})
            update = self._runs.download(update, stream, payloads)
            can_roll_back = self._can_roll_back(self._runs.ask(update, ModuleState.SUPPORTS_ROLLBACK))
            boot = self._runs.boot_id()
            update = self._runs.run(
                update, ModuleState.INSTALL, is_touched=True, installed_in=boot, can_roll_back=can_roll_back
            )
            self._ask_for_reboot(update)

    def fault(self) -> str:
        """Whether the device fell back to what ran before, or nobody knows what runs; in one clause."""
        update = self._runs.load().update
        if update is None:
            return ""
        if update.stuck:
            return update.stuck
        if update.is_on_trial and not self._still_runs(update):
            return f"module {self._name}: {update.version} is not what was booted"
        return ""

    def activate(self) -> Next:
        """Make what was installed run, by the reboot that the module asked for; again after it.

        Raises:
            ConflictError: Nothing was installed.
            InstallError: The module says that the reboot did not lead to the new version.
        """
        with self._one_at_a_time:
            update = self._runs.resume().update
            if update is None or update.reboot is None or update.goes_back or update.is_committed:
                raise ConflictError(f"module {self._name}: nothing was installed that could be activated")
            boot = self._runs.boot_id()
            if not update.is_activated:
                update = self._runs.note(update, is_activated=True, activated_in=boot)
            if update.reboot is Reboot.NO or update.proven_in:
                return Next.NOTHING
            if update.reboot is Reboot.AUTOMATIC:
                if boot == update.installed_in:  # whoever rebooted it since, that was the reboot
                    return Next.REBOOT
            elif update.at is not ModuleState.VERIFY_REBOOT and not self._rebooted(update, ModuleState.REBOOT):
                update = self._runs.run(update, ModuleState.REBOOT)
            self._prove(update)
            return Next.NOTHING

    def commit(self) -> None:
        """Keep the new version; repeated, it changes nothing.

        Raises:
            ConflictError: What was installed was not activated.
            InstallError: The module failed, or the device fell back to what ran before.
        """
        with self._one_at_a_time:
            update = self._runs.resume().update
            if update is not None and not update.is_committed:
                if not update.is_on_trial:
                    raise ConflictError(f"module {self._name}: {update.version} does not run; it cannot be committed")
                self._commit(update)
                update = self._runs.open_update()
                version = Version(version=update.version, digest=update.digest)
                update = update.model_copy(update={"is_committed": True})
                self._runs.save(MenderState(running=version, update=update))
            self._runs.finish(update)

    def rollback(self) -> Next:
        """Return to the former version, by a reboot where one led away from it; again after it.

        Raises:
            InstallError: The module cannot go back, or failed.
        """
        with self._one_at_a_time:
            return self._back.go_back(self._runs.resume())

    def running(self) -> Running | None:
        """What runs; after a reboot the module is asked whether that is still what is on trial."""
        state = self._runs.load()
        update = state.update
        if update is not None and update.stuck:
            return None
        if update is not None and update.is_on_trial and self._still_runs(update):
            return _described(update)
        return _described(state.running)

    def status(self) -> Status:
        """What is where; what the module touched is ``pending``, since nothing else may follow but its end."""
        running = self.running()
        state = self._runs.load()
        update = state.update
        if update is None or update.is_committed or update.stuck:
            return Status(running, None, None, None)
        new = _described(update)
        is_installed = update.reboot is not None and not update.is_activated and not update.goes_back
        return Status(
            running,
            installed=new if is_installed else None,
            pending=new if update.is_touched else None,
            former=_described(state.running) if update.is_touched else None,
        )

    def streams(self) -> tuple[InstalledStream, ...]:
        """Nothing: only the module knows where it put the running version."""
        return ()

    def way_back(self) -> bool:
        """Whether the module says that it can go back; False where it cannot be asked."""
        update = self._runs.load().update
        if update is not None and update.can_roll_back is not None and not update.stuck:
            return update.can_roll_back
        try:
            return self._can_roll_back(self._runs.ask_beforehand(ModuleState.SUPPORTS_ROLLBACK))
        except (ContentError, DeviceError) as error:
            log.warning("update module could not be asked for a way back", why=str(error)[:500])
            return False

    def _is_in_place(self, digest: str) -> bool:
        """Whether that release is installed already; whatever else was left open is ended."""
        state = self._runs.resume()
        update = state.update
        if update is None:
            return False
        if update.is_activated and not update.goes_back and not update.is_committed:
            raise ConflictError(f"module {self._name}: {update.version} is on trial; commit it or roll it back first")
        if update.digest == digest and not update.goes_back and not update.is_committed:
            if update.reboot is not None:
                return True
            if (update.at is ModuleState.INSTALL and update.ended == "ok") or update.at is ModuleState.NEEDS_REBOOT:
                self._ask_for_reboot(update)
                return True
        if update.stuck:
            # Whatever was mixed is what the new release is there for. Nothing is known to run.
            self._runs.drop()
            self._runs.save(MenderState())
        elif self._back.go_back(state) is Next.REBOOT:
            raise ConflictError(f"module {self._name}: going back from {update.version} needs a reboot first")
        return False

    def _ask_for_reboot(self, update: ModuleUpdate) -> None:
        answer = self._runs.ask(update, ModuleState.NEEDS_REBOOT) or Reboot.NO
        if answer not in list(Reboot):
            raise InstallError(
                f"module {self._name}: NeedsArtifactReboot: expected Yes, No or Automatic, found {answer[:40]!r}"
            )
        self._runs.note(update, reboot=Reboot(answer))

    def _can_roll_back(self, answer: str) -> bool:
        if answer not in ("Yes", "No", ""):
            raise InstallError(f"module {self._name}: SupportsRollback: expected Yes or No, found {answer[:40]!r}")
        return answer == "Yes"

    def _rebooted(self, update: ModuleUpdate, state: ModuleState) -> bool:
        """Whether that reboot is behind us: the module ended well, or it took the agent down with it."""
        if update.at is not state or update.ended == "failed":
            return False
        return update.ended == "ok" or self._runs.boot_id() != update.activated_in

    def _prove(self, update: ModuleUpdate) -> None:
        update = self._runs.run(update, ModuleState.VERIFY_REBOOT)
        self._runs.note(update, proven_in=self._runs.boot_id(), proven_root=self._root.stat().st_dev)

    def _still_runs(self, update: ModuleUpdate) -> bool:
        """Whether what is on trial is what was booted; a boot loader goes back by itself."""
        boot = self._runs.boot_id()
        if update.reboot is Reboot.NO or update.proven_in == boot:
            return True
        if update.fallen_in == boot:
            return False
        if ModuleState.COMMIT in update.runs:
            # Its answer says nothing any more: what was committed is not on trial.
            return self._root.stat().st_dev == update.proven_root
        with self._one_at_a_time:
            try:
                self._prove(update)
            except InstallError as error:
                log.error("fell back to the former version", version=update.version, why=error.detail[:500])
                self._runs.note(self._runs.open_update(), fallen_in=boot)
                return False
        return True

    def _commit(self, update: ModuleUpdate) -> None:
        again = ModuleState.COMMIT in update.runs
        if not self._still_runs(update):
            raise InstallError(f"module {self._name}: {update.version} is not what was booted; it cannot be committed")
        try:
            self._runs.run(self._runs.open_update(), ModuleState.COMMIT)
        except InstallError as error:
            # Cut off before, some refuse what they did already. They accept a rollback then, and stay what they are.
            if not again or not self._was_committed():
                raise
            log.warning("was committed before it was cut off", version=update.version, why=error.detail[:500])

    def _was_committed(self) -> bool:
        update = self._runs.open_update()
        if update.reboot is not Reboot.AUTOMATIC or self._root.stat().st_dev != update.proven_root:
            return False
        try:
            self._runs.run(update, ModuleState.VERIFY_REBOOT)
        except InstallError:
            return True  # the new system runs, and is not on trial any more
        return False


def _described(version: Version | None) -> Running | None:
    return None if version is None else Running(version.version, version.digest, None)
