"""By which keys a report is believed: the device's own, and new ones that are on their way to it."""

from orchestrator.fleet.renewal import renew, use_new_keys
from orchestrator.ingest.device_keys import DeviceKeys
from protocol.envelopes import open_envelope
from protocol.errors import EnvelopeError
from protocol.reports import RENEWAL_TYPE, Renewal
from tests.orchestrator.fleet.asking import Keys, Office, renewal, signed_renewal
from tests.orchestrator.fleet.test_renewal import add_device


def believed(keys: DeviceKeys, raw: bytes, device: str = "d1") -> bool:
    """Whether a report of a device holds."""
    verify = keys.get(device)
    if verify is None:
        return False
    try:
        open_envelope(raw, 16_384, RENEWAL_TYPE, verify, Renewal)
    except EnvelopeError:
        return False
    return True


async def test_old_and_new_keys_hold_until_the_new_one_was_heard(bureau: Office) -> None:
    """Then only the new one; a third key never."""
    old, new, other = Keys(), Keys(), Keys()
    await add_device(bureau, old)
    by_old, by_new, by_other = (signed_renewal("d1", one, Keys()) for one in (old, new, other))
    keys = DeviceKeys(bureau.db)
    await keys.load(["d1", "d9"])
    assert [believed(keys, raw) for raw in (by_old, by_new, by_other)] == [True, False, False]
    assert not believed(keys, by_old, "d9")

    await renew(bureau.db, bureau.home, bureau.settings, bureau.clock, *renewal("d1", new))
    keys.forget("d1")
    await keys.load(["d1"])
    assert believed(keys, by_old) and keys.heard_new == {}
    assert not believed(keys, by_other) and keys.heard_new == {}
    assert believed(keys, by_new) and keys.heard_new == {"d1": new.keyid}
    assert believed(keys, by_old)

    await use_new_keys(bureau.db, bureau.clock, "d1", new.keyid)
    keys.forget("d1")
    await keys.load(["d1"])
    assert [believed(keys, raw) for raw in (by_old, by_new, by_other)] == [False, True, False]
