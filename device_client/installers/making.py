"""The installer that ``device.toml`` names."""

from device_client.boot import boot_id
from device_client.config import DeviceHome, DeviceSettings
from device_client.installers.copies import CopiesInstaller
from device_client.installers.directory import DirectoryInstaller
from device_client.installers.file import FileInstaller
from device_client.installers.rauc import RaucInstaller
from device_client.installers.slots import SlotInstaller
from device_client.installers.swupdate import SwupdateInstaller


def make_installer(home: DeviceHome, settings: DeviceSettings) -> SlotInstaller | CopiesInstaller:
    """Make it; it touches nothing yet."""
    section = settings.installer
    match section.kind:
        case "directory":
            return DirectoryInstaller(home.releases, home.current, home.installer)
        case "file":
            return FileInstaller(home.releases, home.current, home.installer)
        case "rauc":
            return RaucInstaller(section.rauc, home.installer, boot_id)
        case "swupdate":
            assert section.swupdate is not None  # the section says so itself
            return SwupdateInstaller(section.swupdate, home.installer, home.run, boot_id)
