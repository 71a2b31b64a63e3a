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
        must = self._has_left(update)
        try:
            update = self._runs.run(update, ModuleState.ROLLBACK)
        except InstallError as error:
            update = self._runs.open_update()
            if update.runs[ModuleState.ROLLBACK] >= ROLLBACK_TRIES:
                raise self._give_up(update, error.detail, error.log) from error
            raise
        if must and not update.is_activated:
            # A power cut before the activation: it may have booted what was installed, or not.
            try:
                update = self._runs.run(update, ModuleState.VERIFY_ROLLBACK_REBOOT)
                must = False
            except InstallError:
                update = self._runs.open_update()
        return self._runs.note(update, is_rolled_back=True, must_reboot_back=must)

    def _has_left(self, update: ModuleUpdate) -> bool:
        """Whether there was a reboot that may have led away from the former version."""
        if update.reboot is Reboot.YES:
            return update.is_activated
        if self._runs.boot_id() == update.installed_in:
            return False
        if update.reboot is None:  # cut off before it was asked
            try:
                return self._runs.ask(update, ModuleState.NEEDS_REBOOT) == Reboot.AUTOMATIC
            except InstallError:
                return False
        return update.reboot is Reboot.AUTOMATIC

    def _reboot_back(self, update: ModuleUpdate) -> Next:
        boot = self._runs.boot_id()
        if update.reboot is not Reboot.YES:
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
