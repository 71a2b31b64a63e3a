"""Two copies of a system, of which one runs: what RAUC and SWUpdate share.

    install writes the copy that does not run; activate tells the boot loader to start it; the device reboots
    commit keeps it; rollback tells the boot loader to start the other one again; the device reboots

The state is saved before and after each act, so that each can be repeated after a cut at any instant. A reboot is
known by the boot's id: a boot loader that was told, and did not start the copy, has fallen back.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from device_client.errors import ConflictError
from device_client.installed_stream import InstalledStream
from device_client.installers import copies_state
from device_client.installers.copies_state import CopiesState, Note, Stage, Trial
from device_client.installers.installer import InstallError, Next, Running, Status
from protocol.identifiers import check_version
from protocol.manifest import Artifact


@dataclass(frozen=True, slots=True)
class Copies:
    """Names of the copy that runs and of the other one."""

    running: str
    other: str


class CopiesInstaller(ABC):
    """An installer with two copies. Subclasses know the program that writes them and the boot loader."""

    def __init__(self, state: Path, boot_id: Callable[[], str]) -> None:
        """Keep what is known in the file ``state``; ``boot_id`` answers another text after each reboot."""
        self._state_file = state
        self._boot_id = boot_id
        self._seen: tuple[str, str, str] | None = None

    @abstractmethod
    def _look(self) -> Copies:
        """Which copy runs; ``InstallError`` where that cannot be told."""

    @abstractmethod
    def _write(self, bundle: Path, trial: Trial, *, repeated: bool) -> None:
        """Write the trial's copy, durably; ``repeated``: an earlier run may have begun that, or ended it."""

    @abstractmethod
    def _settle(self) -> None:
        """Wait until nothing writes a copy any more, however that ends, with a deadline."""

    @abstractmethod
    def _start_next(self, copy: str) -> None:
        """Tell the boot loader to start a copy; repeated, it changes nothing."""

    @abstractmethod
    def _keep(self, copy: str) -> None:
        """Tell the boot loader that the running copy works."""

    @abstractmethod
    def _give_up(self, copy: str) -> None:
        """Tell the boot loader that a copy is not to be started."""

    @abstractmethod
    def _mark(self, copy: str) -> str:
        """What changes whenever a copy is written; empty where nobody keeps count."""

    @abstractmethod
    def _fault(self, copy: str) -> str:
        """How a copy differs from what was written, as ``fault``."""

    @abstractmethod
    def _can_start(self, copy: str) -> bool:
        """Whether the boot loader would start a copy."""

    def install(self, stream: Path, artifact: Artifact, version: str, digest: str) -> None:
        """Write the release over the copy that does not run; see ``Installer.install``."""
        if artifact.kind != "file":
            raise InstallError("artifact: expected a single file that holds the system, found a directory")
        state = self._load()
        trial = state.trial
        repeated = trial is not None and (trial.version, trial.digest) == (version, digest)
        if repeated:
            self._settle()
        copies = self._look()
        if trial is not None and (trial.activated or trial.copy_name == copies.running):
            raise InstallError(
                f"{trial.version} in {trial.copy_name} is on trial; writing {copies.other} would leave no way back"
            )
        if trial is not None and repeated and trial.stage is Stage.WRITTEN and not self.fault():
            return
        if trial is None or not repeated or trial.stage is Stage.WRITTEN:
            repeated = False
            trial = Trial(
                copy_name=copies.other,
                came_from=copies.running,
                version=version,
                digest=digest,
                before=self._mark(copies.other),
                boot=self._boot_id(),
            )
            state = CopiesState(notes=state.with_note(copies.other, None), trial=trial)
            self._save(state)
        self._write(stream, trial, repeated=repeated)
        note = Note(version=version, digest=digest, mark=self._mark(trial.copy_name))
        written = trial.model_copy(update={"stage": Stage.WRITTEN})
        self._save(CopiesState(notes=state.with_note(trial.copy_name, note), trial=written))

    def install_factory(self, source: Path, version: str) -> Running:
        """Note which version the running copy left the factory with; of ``source`` only the name counts.

        Raises:
            ConflictError: Another version is noted, or on trial.
            InstallError: Which copy runs cannot be told.
        """
        check_version(version)
        state, copies = self._load(), self._look()
        noted = state.notes.get(copies.running)
        if noted is not None and noted.version == version:
            return Running(noted.version, noted.digest, None)
        if noted is not None or state.trial is not None:
            found = noted.version if noted is not None else "a trial"
            raise ConflictError(f"{copies.running}: {found} is installed already; {version} must come as a release")
        digest = hashlib.sha256(source.name.encode()).hexdigest()
        note = Note(version=version, digest=digest, mark=self._mark(copies.running))
        self._save(CopiesState(notes=state.with_note(copies.running, note)))
        return Running(version, digest, None)

    def activate(self) -> Next:
        """Let the boot loader start what was installed; asked again after the reboot, say whether it did.

        Raises:
            InstallError: Nothing was installed, or the boot loader fell back.
        """
        state = self._load()
        trial = state.trial
        if trial is None or trial.stage in (Stage.WRITING, Stage.RETURNING, Stage.RETURNED):
            raise InstallError("nothing was installed that could be activated")
        boot = self._boot_id()
        running = self._running_copy()
        if running == trial.copy_name:
            self._save_stage(state, trial, Stage.ACTIVATED, boot)
            return Next.NOTHING
        if trial.stage is Stage.ACTIVATED and trial.boot != boot:
            raise InstallError(
                f"the boot loader fell back: {trial.copy_name} ({trial.version}) was to start, {running} runs"
            )
        self._save_stage(state, trial, Stage.ACTIVATING, boot)
        self._start_next(trial.copy_name)
        self._save_stage(state, trial, Stage.ACTIVATED, boot)
        return Next.REBOOT

    def commit(self) -> None:
        """Keep the running copy; repeated, it changes nothing.

        Raises:
            InstallError: What is on trial does not run.
        """
        state = self._load()
        trial = state.trial
        if trial is None:
            return
        if self._running_copy() != trial.copy_name:
            raise InstallError(f"{trial.copy_name} with {trial.version} does not run; it cannot be committed")
        self._keep(trial.copy_name)
        self._save(CopiesState(notes=state.notes))

    def rollback(self) -> Next:
        """Return to the copy that ran before, by a reboot where the new one runs; repeated, it changes nothing.

        Raises:
            InstallError: The boot loader cannot be told, or did not return.
        """
        state = self._load()
        trial = state.trial
        if trial is None:
            return Next.NOTHING
        self._settle()
        boot = self._boot_id()
        if self._running_copy() == trial.copy_name:
            if trial.stage is Stage.RETURNED and trial.boot != boot:
                raise InstallError(
                    f"the boot loader did not go back: {trial.came_from} was to start, {trial.copy_name} runs"
                )
            self._save_stage(state, trial, Stage.RETURNING, boot)
            self._return_to(trial)
            self._save_stage(state, trial, Stage.RETURNED, boot)
            return Next.REBOOT
        self._return_to(trial)
        self._save(CopiesState(notes=state.with_note(trial.copy_name, None)))
        return Next.NOTHING

    def running(self) -> Running | None:
        """What the running copy holds; None where nobody noted it, or others have written it since."""
        state = self._load()
        return self._describe(state, self._see(state)[0])

    def status(self) -> Status:
        """What is where."""
        state = self._load()
        running, _ = self._see(state)
        trial = state.trial
        tried = None if trial is None else Running(trial.version, trial.digest, None)
        # Also one that runs unasked: some programs tell the boot loader by themselves.
        on_trial = trial is not None and (trial.activated or trial.copy_name == running)
        if trial is None:
            former = next((name for name in state.notes if name != running), None)
        else:
            former = trial.came_from if on_trial else None
        return Status(
            running=self._describe(state, running),
            installed=tried if trial is not None and trial.stage is Stage.WRITTEN and not on_trial else None,
            pending=tried if on_trial else None,
            former=self._describe(state, former) if former else None,
        )

    def streams(self) -> tuple[InstalledStream, ...]:
        """None: a copy is not the stream that it was written from."""
        return ()

    def fault(self) -> str:
        """How what was installed last, or runs, differs from what was written."""
        trial = self._load().trial
        return self._fault(self._running_copy() if trial is None else trial.copy_name)

    def way_back(self) -> bool:
        """Whether the boot loader would start the copy that a rollback returns to, and its content is known."""
        state, running = self._load(), self._running_copy()
        trial = state.trial
        copy = trial.came_from if trial is not None and trial.activated else running
        return (copy == running or copy in state.notes) and self._can_start(copy)

    def _return_to(self, trial: Trial) -> None:
        """First a copy that starts, then away with the other: there is one at every instant."""
        self._start_next(trial.came_from)
        self._give_up(trial.copy_name)

    def _running_copy(self) -> str:
        return self._see(self._load())[0]

    def _see(self, state: CopiesState) -> tuple[str, str]:
        """The running copy and its mark. Neither changes before the next boot, so the program is asked once in a boot.

        What it was asked, the state may know: some programs answer nothing while they write a copy.
        """
        boot = self._boot_id()
        if self._seen is None or self._seen[0] != boot:
            try:
                name = self._look().running
                self._seen = boot, name, self._mark(name)
            except InstallError:
                trial = state.trial
                if trial is None or trial.activated or trial.boot != boot:
                    raise
                note = state.notes.get(trial.came_from)
                return trial.came_from, "" if note is None else note.mark
        return self._seen[1:]

    def _describe(self, state: CopiesState, copy: str) -> Running | None:
        note = state.notes.get(copy)
        if note is None:
            return None
        running, mark = self._see(state)
        if copy == running and mark != note.mark:
            return None
        return Running(note.version, note.digest, None)

    def _save_stage(self, state: CopiesState, trial: Trial, stage: Stage, boot: str) -> None:
        trial = trial.model_copy(update={"stage": stage, "boot": boot})
        self._save(state.model_copy(update={"trial": trial}))

    def _load(self) -> CopiesState:
        return copies_state.load(self._state_file)

    def _save(self, state: CopiesState) -> None:
        copies_state.save(self._state_file, state)
