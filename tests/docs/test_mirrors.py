"""The settings on the page about mirrors are settings."""

import tomllib
from pathlib import Path

from device_client.config import DeviceSettings
from orchestrator.config import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "mirrors.md").read_text()
DEVICE = {"id": "d1", "product": "cam", "hardware": "rev-b"}


def tables(*named: str) -> str:
    """The page's indented blocks that begin with a table of these names."""
    blocks, block = [], ""
    for line in [*PAGE.splitlines(), "end"]:
        if line.startswith("    ") or (block and not line):
            block += line[4:] + "\n"
        elif block:
            blocks.append(block)
            block = ""
    return "".join(block for block in blocks if block.strip("[").startswith(named))


def test_the_orchestrators_section() -> None:
    """It turns the listener on."""
    found = Settings(**tomllib.loads(tables("mirror]")))
    assert found.mirror.port == 8443 and len(found.mirror.advertised) == 1


def test_the_devices_sections() -> None:
    """Three sources in their order, and a limit for metered links."""
    found = DeviceSettings.model_validate({"device": DEVICE, **tomllib.loads(tables("download.sources]]", "network]"))})
    assert [one.kind for one in found.download.sources] == ["directory", "https", "mqtt"]
    assert found.network.metered_bytes_per_day > 0
