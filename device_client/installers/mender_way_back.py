"""How an update module gives up a release: what it touched is rolled back, what it did not is cleaned up.

ArtifactRollback, [ArtifactRollbackReboot or a reboot, ArtifactVerifyRollbackReboot], ArtifactFailure, Cleanup
"""

import structlog

from device_client.installers.installer import InstallError, Next
from device_client.installers.mender_runs import ModuleRuns
from device_client.installers.mender_state import MenderState, ModuleState, ModuleUpdate, Reboot

log = structlog.get_logger(__name__)

ROLLBACK_TRIES = 3


class WayBack:
    """The way back of one device. Each step is safe to repeat."""

    def __init__(self, runs: ModuleRuns, name: str) -> None:
        self._runs, self._name = runs, name

    def go_back(self, state: MenderState) -> Next:
        """End the open update without it; again after a reboot, where that is the answer.

        Raises:
            InstallError: The module cannot go back, or failed; after three tries for good.
        """
        update = state.update
        if update is None or update.is_committed or not update.is_touched:
            self._runs.finish(update)
            return Next.NOTHING
        if update.stuck:
            raise InstallError(update.stuck)
        if not update.can_roll_back:
            raise self._give_up(update, f"module {self._name} cannot go back from {update.version}", "")
        if not update.is_rolled_back:
            update = self._roll_back(update)
        if update.must_reboot_back and self._reboot_back(update) is Next.REBOOT:
            return Next.REBOOT
        update = self._runs.try_run(self._runs.open_update(), ModuleState.FAILURE)
        self._runs.finish(update)
        return Next.NOTHING

    def _roll_back(self, update: ModuleUpdate) -> ModuleUpdate:
        """Only what was booted needs a reboot to be left."""
        left = update.reboot is Reboot.YES or self._runs.boot_id() != update.activated_in
        must = update.is_activated and update.reboot is not Reboot.NO and left
        try:
            update = self._runs.run(update, ModuleState.ROLLBACK, must_reboot_back=must)
        except InstallError as error:
            update = self._runs.open_update()
            if update.runs[ModuleState.ROLLBACK] >= ROLLBACK_TRIES:
                raise self._give_up(update, error.detail, error.log) from error
            raise
        return self._runs.note(update, is_rolled_back=True)

    def _reboot_back(self, update: ModuleUpdate) -> Next:
        boot = self._runs.boot_id()
        if update.reboot is Reboot.AUTOMATIC:
            if update.back_asked_in in ("", boot):
                self._runs.note(update, back_asked_in=boot)
                return Next.REBOOT
        elif not update.was_cut_off_in(ModuleState.ROLLBACK_REBOOT) or update.back_asked_in in ("", boot):
            update = self._runs.run(update, ModuleState.ROLLBACK_REBOOT, back_asked_in=boot)
        try:
            self._runs.run(update, ModuleState.VERIFY_ROLLBACK_REBOOT)
        except InstallError as error:
            update = self._runs.open_update()
            if update.runs[ModuleState.VERIFY_ROLLBACK_REBOOT] >= ROLLBACK_TRIES:
                raise self._give_up(update, error.detail, error.log) from error
            log.error("not back yet", version=update.version, why=error.detail[:500])
            if update.reboot is Reboot.YES:
                return self._reboot_back(update)
            self._runs.note(update, back_asked_in=boot)
            return Next.REBOOT
        return Next.NOTHING

    def _give_up(self, update: ModuleUpdate, why: str, output: str) -> InstallError:
        """End the update without a way back; the error to raise."""
        update = self._runs.note(update, stuck=f"{why}; nobody knows what runs"[:500])
        update = self._runs.try_run(update, ModuleState.FAILURE)
        update = self._runs.try_run(update, ModuleState.CLEANUP)
        self._runs.drop()
        return InstallError(update.stuck, output)
