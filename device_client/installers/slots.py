"""Versions beside one another and a link to the one that runs: what the directory and file installers share.

    releases/1.0.0-3f2a.../     releases/1.1.0-9bc1.../      current -> releases/1.1.0-9bc1...

Measured with power cuts at every system call: a link that is switched before the new version is on the disk may point
at empty files. So: write under another name, syncfs, rename, fsync the parent; and only then switch the link.
"""

import errno
import hashlib
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from device_client.durable import explained, switch_link, sync_directory, sync_tree
from device_client.errors import ConflictError, DeviceError, StorageError
from device_client.installed_stream import InstalledStream
from device_client.installers import chunk_index, records, slots_state
from device_client.installers.chunk_index import ChunkIndex, index_artifact, index_tree, stream_of
from device_client.installers.installer import Next, Running, Status
from device_client.installers.records import (
    DIRECTORY,
    Record,
    is_intact,
    keep,
    look_up,
    record_artifact,
    record_tree,
)
from device_client.installers.slots_state import SlotsState
from device_client.trees import read_tree
from protocol.errors import ContentError, ErrorCode
from protocol.identifiers import check_digest, check_version
from protocol.manifest import Artifact

log = structlog.get_logger(__name__)

DIGEST_LETTERS = 12
PARTIAL = ".partial"


class SlotInstaller(ABC):
    """An installer with versions side by side. Subclasses say how one version is written."""

    def __init__(self, releases: Path, current: Path, state: Path) -> None:
        """Work below ``releases``, with the link ``current`` beside it and the file ``state`` elsewhere."""
        self._releases = releases
        self._current = current
        self._state_file = state

    @abstractmethod
    def _write(self, stream: Path, artifact: Artifact, partial: Path) -> None:
        """Write the artifact to ``partial``, which does not exist yet."""

    @abstractmethod
    def _copy(self, source: Path, partial: Path) -> None:
        """Copy what the factory installed to ``partial``, which does not exist yet."""

    def install(self, stream: Path, artifact: Artifact, version: str, digest: str) -> Path:
        """Write the release beside the running one; see ``Installer.install``."""
        name = slot_name(version, digest)
        state = self._load()
        place = self._releases / name
        if os.path.lexists(place) and not is_intact(self._releases, name):
            if name in (self._link(), state.pending_from):
                raise ContentError(ErrorCode.INSTALL, f"{place}: is in use and damaged, so it cannot be written again")
            self._remove(name)
        if not os.path.lexists(place):
            with install_errors(place):
                partial = self._fresh_partial(name)
                self._write(stream, artifact, partial)
                self._place(partial, name, record_artifact(artifact, version, digest), index_artifact(artifact))
        with explained(place, "kept"):  # also where an earlier run was cut off after the rename
            sync_directory(self._releases)
        if state.pending != name:
            self._save(state.model_copy(update={"installed": name}))
        return place

    def install_factory(self, source: Path, version: str) -> Running:
        """Copy what the device left the factory with, and let it run.

        Raises:
            NotFoundError: ``source`` does not exist or is of the wrong kind.
            ConflictError: Another version runs already.
            StorageError: It cannot be copied.
        """
        check_version(version)
        running = self.running()
        if running is not None:
            if running.version == version:
                return running
            raise ConflictError(
                f"{self._current}: version {running.version} is installed already; {version} must come as a release"
            )
        partial = self._fresh_partial(f"{version}-factory")
        with explained(source, "copied"):
            self._copy(source.resolve(strict=True), partial)
            tree = read_tree(partial)
            record = record_tree(tree, version, "")
            index = index_tree(partial, record)
        record = record.model_copy(update={"digest": tree_digest(record)})
        name = slot_name(version, record.digest)
        with explained(self._releases / name, "written"):
            if os.path.lexists(self._releases / name):  # a former run was cut off before the link
                self._remove(name)
            self._place(partial, name, record, index)
            sync_directory(self._releases)
        self._switch(name)
        return self._describe(name)

    def activate(self) -> Next:
        """Make what was installed last the running version, at once; repeated, it changes nothing.

        Raises:
            ConflictError: Nothing was installed.
            StorageError: The link cannot be switched.
        """
        state = self._load()
        if state.installed is not None:
            # Where a trial was never ended, what it came from is still the way back.
            came_from = state.pending_from if state.pending is not None else self._link()
            state = SlotsState(pending=state.installed, pending_from=came_from, former=state.former)
            self._save(state)
        if state.pending is None:
            raise ConflictError(f"{self._releases}: nothing was installed that could be activated")
        if not os.path.lexists(self._releases / state.pending):
            raise StorageError(f"{self._releases / state.pending}: is gone; it cannot be activated")
        self._switch(state.pending)
        return Next.NOTHING

    def commit(self) -> None:
        """Keep the running version and the one before it; repeated, it changes nothing.

        Raises:
            ConflictError: What is pending does not run.
        """
        state = self._load()
        if state.pending is not None:
            if self._link() != state.pending:
                raise ConflictError(f"{self._current}: does not point at {state.pending}; it cannot be committed")
            state = SlotsState(former=state.pending_from)
            self._save(state)
        self._clean(state)

    def rollback(self) -> Next:
        """Return to the version before the activation, at once; repeated, it changes nothing.

        Raises:
            StorageError: That version is gone, or the link cannot be switched.
        """
        state = self._load()
        former = state.pending_from
        if state.pending is not None and self._link() in (state.pending, former):
            if former is None:
                with explained(self._current, "removed"):
                    self._current.unlink(missing_ok=True)
                    sync_directory(self._current.parent)
            elif not os.path.lexists(self._releases / former):
                raise StorageError(f"{self._releases / former}: is gone; there is no way back")
            else:
                self._switch(former)
        state = SlotsState(former=state.former)
        self._save(state)
        self._clean(state)
        return Next.NOTHING

    def running(self) -> Running | None:
        """What ``current`` points at."""
        name = self._link()
        return None if name is None else self._describe(name)

    def status(self) -> Status:
        """What is where."""
        state = self._load()
        name = self._link()
        former = state.pending_from if state.pending else state.former
        return Status(
            running=self._describe(name) if name else None,
            installed=self._describe(state.installed) if state.installed else None,
            pending=self._describe(state.pending) if state.pending and state.pending == name else None,
            former=self._describe(former) if former else None,
        )

    def way_back(self) -> bool:
        """Whether the version that a rollback returns to is present and intact; hashes all of it."""
        state = self._load()
        name = state.pending_from if state.pending else self._link()
        return name is not None and is_intact(self._releases, name)

    def fault(self) -> str:
        """How what was installed last, or runs, differs from its record, by the first file; hashes all of both."""
        for name in dict.fromkeys((self._load().installed, self._link())):
            if name is not None and (difference := records.fault(self._releases, name)):
                return f"{self._releases / name}: is not as it was written: {difference}"
        return ""

    def streams(self) -> tuple[InstalledStream, ...]:
        """What can be copied from: the running version, then the one before it."""
        names = dict.fromkeys(name for name in (self._link(), self._load().former) if name is not None)
        return tuple(stream for stream in (stream_of(self._releases, name) for name in names) if stream is not None)

    def _place(self, partial: Path, name: str, record: Record, index: ChunkIndex) -> None:
        sync_tree(partial)
        keep(self._releases, name, record)
        chunk_index.keep(self._releases, name, index)
        partial.rename(self._releases / name)

    def _switch(self, name: str) -> None:
        if self._link() == name:
            with explained(self._current, "kept"):  # an earlier run may have been cut off before it was durable
                sync_directory(self._current.parent)
            return
        switch_link(self._current, os.path.relpath(self._releases / name, self._current.parent))

    def _link(self) -> str | None:
        try:
            return self._current.readlink().name
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"{self._current}: expected a link to a release, found something else") from error

    def _describe(self, name: str) -> Running:
        record = look_up(self._releases, name)
        if record is not None:
            return Running(record.version, record.digest, self._releases / name)
        version, _, digest = name.rpartition("-")
        return Running(version, digest, self._releases / name)

    def _fresh_partial(self, name: str) -> Path:
        self._releases.mkdir(parents=True, exist_ok=True)
        partial = self._releases / f"{name}{PARTIAL}"
        _remove_tree(partial)
        return partial

    def _clean(self, state: SlotsState) -> None:
        """What cannot be removed stays until the next time: it must not undo what was decided."""
        named = {self._link(), state.installed, state.pending, state.pending_from, state.former, DIRECTORY}
        for path in list(self._releases.iterdir()):
            if path.name not in named:
                try:
                    self._remove(path.name)
                except (DeviceError, OSError) as error:
                    log.warning("old release not removed", name=path.name, why=str(error)[:500])

    def _remove(self, name: str) -> None:
        with explained(self._releases / name, "removed"):
            _remove_tree(self._releases / name)
            (self._releases / DIRECTORY / f"{name}.json").unlink(missing_ok=True)
            chunk_index.forget(self._releases, name)

    def _load(self) -> SlotsState:
        return slots_state.load(self._state_file)

    def _save(self, state: SlotsState) -> None:
        if state != self._load():
            slots_state.save(self._state_file, state)


def slot_name(version: str, digest: str) -> str:
    """The name of a release's directory: two releases with one version never share it.

    Raises:
        ValueError: The version or the digest may not stand in a file name.
    """
    return f"{check_version(version)}-{check_digest(digest)[:DIGEST_LETTERS]}"


def tree_digest(record: Record) -> str:
    """A name for what no manifest describes: the hash of its list of files."""
    return hashlib.sha256(record.model_dump_json(include={"files", "links"}).encode()).hexdigest()


@contextmanager
def install_errors(place: Path) -> Iterator[None]:
    """Turn an OSError into the code that the report carries."""
    try:
        yield
    except OSError as error:
        code = ErrorCode.SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else ErrorCode.INSTALL
        raise ContentError(code, f"{place}: cannot be written: {error.strerror or error}") from error


def _remove_tree(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
