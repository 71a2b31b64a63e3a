"""Which boot it is."""

from device_client.boot import boot_id


def test_boot_id() -> None:
    """The same as long as the machine is up."""
    assert boot_id() == boot_id() != ""
