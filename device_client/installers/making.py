"""The installer that ``device.toml`` names."""

from collections.abc import Callable

from device_client.boot import boot_id
from device_client.config import DeviceHome, DeviceSettings
from device_client.installers.directory import DirectoryInstaller
from device_client.installers.file import FileInstaller
from device_client.installers.installer import Installer


def make_installer(home: DeviceHome, settings: DeviceSettings, boot: Callable[[], str] = boot_id) -> Installer:
    """Make it; it touches nothing yet. ``boot`` says which boot of the device this is.

    A device has one kind of them: the code of the others takes no memory there.
    """
    section = settings.installer
    match section.kind:
        case "directory":
            return DirectoryInstaller(home.releases, home.current, home.installer)
        case "file":
            return FileInstaller(home.releases, home.current, home.installer)
        case "mender":
            from device_client.installers.mender import MenderInstaller

            assert section.mender is not None  # the section says so itself
            return MenderInstaller(home.mender, home.installer, section.mender, settings.device, boot)
        case "rauc":
            from device_client.installers.rauc import RaucInstaller

            return RaucInstaller(section.rauc, home.installer, boot)
        case "swupdate":
            from device_client.installers.swupdate import SwupdateInstaller

            assert section.swupdate is not None  # the section says so itself
            return SwupdateInstaller(section.swupdate, home.installer, home.run, boot)
