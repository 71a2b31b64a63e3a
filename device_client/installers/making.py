"""The installer that ``device.toml`` names."""

from collections.abc import Callable

from device_client.config import DeviceHome, DeviceSettings
from device_client.installers.directory import DirectoryInstaller
from device_client.installers.file import FileInstaller
from device_client.installers.installer import Installer
from device_client.installers.mender import MenderInstaller


def make_installer(home: DeviceHome, settings: DeviceSettings, boot_id: Callable[[], str]) -> Installer:
    """Make it; it touches nothing yet. ``boot_id`` says which boot this is."""
    match settings.installer.kind:
        case "directory":
            return DirectoryInstaller(home.releases, home.current, home.installer)
        case "file":
            return FileInstaller(home.releases, home.current, home.installer)
        case "mender":
            if settings.installer.mender is None:
                raise ValueError("kind 'mender' without its table")
            return MenderInstaller(home.mender, home.installer, settings.installer.mender, settings.device, boot_id)
