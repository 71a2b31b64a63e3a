"""By which keys a device is believed: its own, and for a while the new ones that it was given a certificate for."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from securesystemslib.signer import Key, Signature

from orchestrator.storage import devices, renewals
from orchestrator.storage.database import Database
from protocol.envelopes import Verify, verify_with

log = structlog.get_logger(__name__)

MAX_KEYS = 50_000


class DeviceKeys:
    """Keys of the devices heard last."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._keys: OrderedDict[str, Verify] = OrderedDict()
        self._forgotten = 0
        self.heard_new: dict[str, str] = {}
        """Key ids by device, of those heard under a new key since somebody emptied this."""

    def get(self, device: str) -> Verify | None:
        """A device's signature check; None where it is not enrolled or was not loaded."""
        return self._keys.get(device)

    def forget(self, device: str) -> None:
        """A device's keys changed, or count no more."""
        self._forgotten += 1
        self._keys.pop(device, None)

    async def load(self, ids: Iterable[str]) -> None:
        """Keys of devices that are not known yet, and room for them."""
        wanted = dict.fromkeys(ids)
        while missing := [device for device in wanted if device not in self._keys]:
            forgotten = self._forgotten
            async with self._db.read() as conn:
                found = await devices.keys(conn, missing)
                under_way = await renewals.get_many(conn, missing)
            if forgotten != self._forgotten:
                continue  # what was read may be what was to be forgotten
            for device, (report_key, _) in found.items():
                new = under_way.get(device)
                try:
                    self._keys[device] = self._both(device, report_key, new.report_key) if new else _one(report_key)
                except Exception as error:  # noqa: BLE001 - a damaged row silences its own device only
                    log.error("report key not readable", device_id=device, why=type(error).__name__)
            break
        for device in wanted:
            if device in self._keys:
                self._keys.move_to_end(device)
        while len(self._keys) > MAX_KEYS:
            self._keys.popitem(last=False)

    def _both(self, device: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Verify:
        by_old, by_new, keyid = _one(old), _one(new), str(new["keyid"])

        def verify(pae: bytes, signatures: Mapping[str, Signature]) -> None:
            if keyid not in signatures:
                by_old(pae, signatures)
                return
            by_new(pae, signatures)
            self.heard_new[device] = keyid

        return verify


def _one(stored: Mapping[str, Any]) -> Verify:
    fields = dict(stored)
    return verify_with(Key.from_dict(fields.pop("keyid"), fields))
