"""What a selector's key stands for."""

import pytest

from orchestrator.model.device import Device

DEVICE = Device(
    id="d1",
    product="gateway",
    hardware="rev-a",
    components={"os": "1.1.0"},
    labels={"site": "lab", "id": "not-this", "product": "nor-this"},
)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", "d1"),
        ("product", "gateway"),
        ("hardware", "rev-a"),
        ("component.os", "1.1.0"),
        ("component.app", None),
        ("component.", None),
        ("site", "lab"),
        ("os", None),
    ],
)
def test_values(key: str, value: str | None) -> None:
    """Identity first: a label named ``id`` does not make a device another one."""
    assert DEVICE.value(key) == value
