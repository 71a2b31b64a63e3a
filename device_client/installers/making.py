"""The installer that ``device.toml`` names."""

from device_client.config import DeviceHome, DeviceSettings
from device_client.installers.directory import DirectoryInstaller
from device_client.installers.file import FileInstaller
from device_client.installers.slots import SlotInstaller


def make_installer(home: DeviceHome, settings: DeviceSettings) -> SlotInstaller:
    """Make it; it touches nothing yet."""
    kind = DirectoryInstaller if settings.installer.kind == "directory" else FileInstaller
    return kind(home.releases, home.current, home.installer)
