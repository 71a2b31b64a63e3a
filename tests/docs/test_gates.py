"""docs/reference/gates.md names every gate and every setting, with its default."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from device_client.config import DeviceHome, DeviceSettings
from device_client.config_gates import GatesSection
from device_client.gate_list import make_gates

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "gates.md"


def _rows() -> dict[str, str]:
    return {found[1]: found[0] for found in re.finditer(r"^\| `(\w+)` \|.*$", PAGE.read_text(), re.MULTILINE)}


def test_every_gate_has_a_row(tmp_path: Path) -> None:
    """A new gate is described before this passes."""
    settings = DeviceSettings.model_validate({"device": {"id": "d", "product": "p", "hardware": "h"}})
    nobody: Any = SimpleNamespace()
    gates = make_gates(
        DeviceHome(tmp_path), settings, nobody, nobody, way_back=bool, last_update=lambda: None, barred=lambda: ()
    )
    assert {gate.name for gate in gates} | {"order"} <= _rows().keys()


def test_every_setting_is_told_with_its_default() -> None:
    """In the form in which it would stand in device.toml; one without a default as such."""
    text, rows = PAGE.read_text(), _rows()
    for name, field in GatesSection.model_fields.items():
        default = cast("Any", field.default)
        if name in {"deadline_s", "on_deadline", "allow_force"}:
            assert f"| {_toml(default)} |" in rows[name].replace("`", "")
        elif name == "unknown":
            assert f"`{_toml(default)}` (the default)" in text
        elif default is None or default == ():
            assert re.search(rf"`{name}`(, `max_\w+`)* \(none\)", text), name
        else:
            assert f"`{name} = {_toml(default)}`" in text, name


def _toml(value: object) -> str:
    return json.dumps(str(value) if isinstance(value, Path) else value)
