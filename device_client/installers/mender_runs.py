"""One update module and where it stands: each run is noted before it begins and after it ended.

What is decided, and in which order, is ``MenderInstaller``'s.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import structlog

from device_client.config import DeviceSection
from device_client.config_installers import MenderSection
from device_client.errors import DeviceError
from device_client.installers import mender_state
from device_client.installers.installer import InstallError
from device_client.installers.mender_module import MARK, Module, drop_pipes, end_leftovers
from device_client.installers.mender_state import MenderState, ModuleState, ModuleUpdate, Reboot, Version
from device_client.installers.mender_tree import Header, Payload, drop_tree, make_tree, store_payloads
from device_client.installers.slots import install_errors
from protocol.errors import ContentError

log = structlog.get_logger(__name__)

Fact = str | int | bool | dict[ModuleState, int] | Reboot | None

ASKED = "asked-"


class ModuleRuns:
    """Runs the module of one device."""

    def __init__(
        self,
        place: Path,
        state: Path,
        settings: MenderSection,
        device: DeviceSection,
        boot_id: Callable[[], str],
        sync: Callable[[], None],
    ) -> None:
        """As ``MenderInstaller``."""
        self._place, self._tree, self._state_file = place, place / "tree", state
        self._settings, self._device = settings, device
        self._module = Module(settings)
        self.boot_id = boot_id
        self._sync = sync

    def load(self) -> MenderState:
        """What was noted last."""
        return mender_state.load(self._state_file)

    def resume(self) -> MenderState:
        """What was noted last; afterwards no earlier run of the module is under way."""
        state = self.load()
        if state.update is not None:
            end_leftovers(self._tree)
        return state

    def open_update(self) -> ModuleUpdate:
        """The update as it was noted last; RuntimeError where none is open."""
        update = self.load().update
        if update is None:
            raise RuntimeError("no update is open")
        return update

    def save(self, state: MenderState) -> MenderState:
        """Note it, durably."""
        mender_state.save(self._state_file, state)
        return state

    def note(self, update: ModuleUpdate, **facts: Fact) -> ModuleUpdate:
        """Note facts of the open update, durably."""
        update = update.model_copy(update=facts)
        self.save(self.load().model_copy(update={"update": update}))
        return update

    def run(self, update: ModuleUpdate, state: ModuleState, **facts: Fact) -> ModuleUpdate:
        """Run the module for one state; ``facts`` are noted as true from its beginning.

        Raises:
            InstallError: It failed; that is noted too.
        """
        update = self._begin(update, state, **facts)
        try:
            self._module.run(state, self._tree, self._environment(update))
        except InstallError:
            self.note(update, ended="failed")
            raise
        self._sync()  # modules do not sync what they write: nothing is noted as done that a power cut could undo
        return self.note(update, ended="ok")

    def try_run(self, update: ModuleUpdate, state: ModuleState) -> ModuleUpdate:
        """Run it for a state whose failure changes nothing any more: it is logged."""
        if not self._tree.is_dir():
            return update
        try:
            return self.run(update, state)
        except InstallError as error:
            log.warning("update module failed", state=state.value, why=error.detail[:500], output=error.log[-500:])
            return self.open_update()

    def ask(self, update: ModuleUpdate, query: ModuleState) -> str:
        """What the module answers; raises as ``run``. It changes nothing, so nothing is noted."""
        return self._module.ask(query, self._tree, self._environment(update.model_copy(update={"at": query})))

    def ask_beforehand(self, query: ModuleState) -> str:
        """What the module answers while nothing is open, in a tree for that alone.

        Raises:
            ContentError: As ``run``, or the tree cannot be written.
        """
        tree = self._place / f"{ASKED}{os.getpid()}-{os.urandom(4).hex()}"
        with install_errors(tree):
            try:
                make_tree(tree, self._header("", self.load().running))
                return self._module.ask(query, tree, {MARK: "1", "OTA_DEVICE_ID": self._device.id})
            finally:
                shutil.rmtree(tree, ignore_errors=True)

    def download(self, update: ModuleUpdate, stream: Path, payloads: tuple[Payload, ...]) -> ModuleUpdate:
        """Make a fresh tree and give the module the payloads, as streams or as files.

        Raises:
            ContentError: E_SPACE or E_INSTALL; ``InstallError`` where the module failed.
        """
        with install_errors(self._tree):
            update = self.note(update)
            make_tree(self._tree, self._header(update.version, self.load().running))
            with_sizes = self.ask(update, ModuleState.PAYLOAD_SIZES) == "Yes"
            state = ModuleState.DOWNLOAD_WITH_SIZES if with_sizes else ModuleState.DOWNLOAD
            update = self._begin(update, state)
            source = os.open(stream, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                environment = self._environment(update)
                if not self._module.download(self._tree, environment, source, payloads, with_sizes=with_sizes):
                    store_payloads(self._tree, source, payloads)
                drop_pipes(self._tree)
            except (ContentError, OSError):
                self.note(update, ended="failed")
                raise
            finally:
                os.close(source)
        self._sync()
        return self.note(update, ended="ok")

    def finish(self, update: ModuleUpdate | None) -> None:
        """Let the module clean up, remove the tree, and note that nothing is open.

        Raises:
            StorageError: That cannot be noted.
        """
        if update is not None:
            self.try_run(update, ModuleState.CLEANUP)
        self.drop()
        state = self.load()
        if state.update is not None:
            self.save(state.model_copy(update={"update": None}))

    def drop(self) -> None:
        """Remove the tree; what stays is removed the next time."""
        try:
            drop_tree(self._tree)
            for left in self._place.glob(f"{ASKED}*"):
                if not left.name.startswith(f"{ASKED}{os.getpid()}-"):  # of a process that was killed
                    shutil.rmtree(left)
        except (DeviceError, OSError) as error:
            log.warning("update module's tree not removed", why=str(error)[:500])

    def _begin(self, update: ModuleUpdate, state: ModuleState, **facts: Fact) -> ModuleUpdate:
        runs = update.runs | {state: update.runs.get(state, 0) + 1}
        return self.note(update, at=state, ended="", runs=runs, **facts)

    def _environment(self, update: ModuleUpdate) -> dict[str, str]:
        names = {
            MARK: "1",
            "OTA_DEPLOYMENT_ID": update.digest,
            "OTA_DEVICE_ID": self._device.id,
            "OTA_PHASE_ATTEMPT": str(update.runs.get(update.at, 1)),
            "OTA_BOOT_ID": self.boot_id(),
        }
        return names | {f"OTA_PAYLOAD_SHA256_{n}": sha256 for n, sha256 in enumerate(update.payloads)}

    def _header(self, version: str, running: Version | None) -> Header:
        return Header(
            payload_type=self._module.name,
            artifact_name=self._artifact_name(version),
            current_artifact_name=self._artifact_name(running.version) if running is not None else "",
            device_type=self._settings.device_type or self._device.hardware,
        )

    def _artifact_name(self, version: str) -> str:
        return f"{self._settings.artifact_name}-{version}" if self._settings.artifact_name else version
