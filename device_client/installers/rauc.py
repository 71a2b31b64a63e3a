"""RAUC: a bundle is written into the slots that do not run, over D-Bus.

RAUC verifies the bundle by its own keyring, besides what the agent verified. An installation goes on without the
agent, which joins it when it is back, or finds in the slot's status how it ended.
"""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from device_client.config_installers import RaucSection
from device_client.installers.copies import Copies, CopiesInstaller
from device_client.installers.copies_state import Trial
from device_client.installers.installer import InstallError
from device_client.installers.rauc_bus import RaucBus, Slot

log = structlog.get_logger(__name__)

_BLOCK_BYTES = 2**20


class RaucInstaller(CopiesInstaller):
    """Two slots that boot, and those that belong to them."""

    def __init__(self, settings: RaucSection, state: Path, boot_id: Callable[[], str]) -> None:
        super().__init__(state, boot_id)
        self._settings = settings

    def _look(self) -> Copies:
        with self._bus() as bus:
            return _copies(bus.slots())

    def _write(self, bundle: Path, trial: Trial, *, repeated: bool) -> None:
        bundle = bundle.resolve()
        until = time.monotonic() + self._settings.timeout_s
        with self._bus() as bus:
            slot = _slot(bus, trial.copy_name)
            written = repeated and _mark_of(slot) != trial.before and slot.status == "ok"
            # Whoever asked for it: RAUC has written it as a whole, and of this version there is one bundle.
            if written and slot.bundle_version == bus.bundle_version(bundle):
                self._leave_inactive(bus, trial)
                return
            bus.install(bundle, until)
            slot = _slot(bus, trial.copy_name)
            if slot.status != "ok" or _mark_of(slot) == trial.before:
                raise InstallError(f"RAUC: the bundle was installed, but {slot.name} was not written by it")
            self._leave_inactive(bus, trial)

    def _settle(self) -> None:
        with self._bus() as bus:
            try:
                bus.attach(time.monotonic() + self._settings.timeout_s)
            except InstallError:
                if bus.installing():
                    raise

    def _start_next(self, copy: str) -> None:
        with self._bus() as bus:
            bus.mark("active", copy)

    def _keep(self, copy: str) -> None:
        with self._bus() as bus:
            bus.mark("good", copy)

    def _give_up(self, copy: str) -> None:
        with self._bus() as bus:
            bus.mark("bad", copy)

    def _mark(self, copy: str) -> str:
        with self._bus() as bus:
            return _count(bus, copy)

    def _can_start(self, copy: str) -> bool:
        with self._bus() as bus:
            return _slot(bus, copy).boot_status == "good"

    def _fault(self, copy: str) -> str:
        """Hash the devices of a group's slots over what RAUC wrote.

        Only slots of the types in ``compare``: of a file system that was resized, unpacked or mounted writable the
        content differs from the image, and RAUC compared the image while it wrote it.
        """
        with self._bus() as bus:
            group = [slot for slot in bus.slots() if slot.group == copy]
        for slot in group:
            if slot.kind in self._settings.compare and slot.sha256:
                found = _hash(slot.device, slot.size)
                if found != slot.sha256:
                    return f"{slot.name} ({slot.device}): sha256 {found[:12]}, RAUC wrote {slot.sha256[:12]}"
        return ""

    def _leave_inactive(self, bus: RaucBus, trial: Trial) -> None:
        """With RAUC's ``activate-installed`` the boot loader was told already, before the gates were asked."""
        if bus.primary() == trial.copy_name:
            log.warning(
                "RAUC activated what it wrote; taken back", slot=trial.copy_name, hint="activate-installed=false"
            )
            bus.mark("active", trial.came_from)

    def _bus(self) -> RaucBus:
        return RaucBus(self._settings.bus)


def _copies(slots: tuple[Slot, ...]) -> Copies:
    bootable = [slot for slot in slots if slot.bootname]
    running = [slot for slot in bootable if slot.state == "booted"]
    others = [
        slot for slot in bootable if slot.state != "booted" and running and slot.slot_class == running[0].slot_class
    ]
    if len(running) != 1 or len(others) != 1:
        found = ", ".join(f"{slot.name} {slot.state}" for slot in bootable) or "none"
        raise InstallError(f"RAUC: expected one booted slot and one other of its class, found {found}")
    return Copies(running[0].name, others[0].name)


def _slot(bus: RaucBus, name: str) -> Slot:
    for slot in bus.slots():
        if slot.name == name:
            return slot
    raise InstallError(f"RAUC: slot {name} is not in its configuration any more")


def _count(bus: RaucBus, name: str) -> str:
    return _mark_of(_slot(bus, name))


def _mark_of(slot: Slot) -> str:
    return f"{slot.count} {slot.sha256}" if slot.count or slot.sha256 else ""


def _hash(device: Path, size: int) -> str:
    """Of the first ``size`` bytes; fewer where there are not so many."""
    digest = hashlib.sha256()
    try:
        with device.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_DONTNEED)  # what is on the disk, not in memory
            while size and (block := file.read(min(size, _BLOCK_BYTES))):
                digest.update(block)
                size -= len(block)
    except OSError as error:
        raise InstallError(f"{device}: cannot be compared: {error.strerror or error}") from error
    return digest.hexdigest()
