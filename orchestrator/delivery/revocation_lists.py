"""The two files of revocation lists: renewed daily and when somebody is revoked, and an alarm when they are not."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog

from orchestrator.config import Home
from orchestrator.errors import NotFoundError, OperationError
from orchestrator.fleet import closing, crls
from orchestrator.fleet.authority import Authority
from orchestrator.fleet.crls import CRL_ALARM, CRL_KEPT, CRL_RENEWAL, Crl, Probe, read_crl
from orchestrator.model.device import DeviceState
from orchestrator.storage import certificates, devices, events
from orchestrator.storage.database import Database
from protocol.clock import Clock

log = structlog.get_logger(__name__)

DEVICES, SERVICES = "devices-ca", "services-ca"
NAMED = "named by the revocation list, but enrolled in a database that is older"


@dataclass
class CaList:
    """One CA's list: where it is and what is known of it."""

    name: str
    path: Path
    crl: Crl | None = None
    probe: Probe | None = None
    alarmed: int = 0


class NotYetError(OperationError):
    """Somebody else has not done their part; it is tried again."""


class RevocationLists:
    """Written here, loaded by every broker."""

    def __init__(self, db: Database, home: Home, clock: Clock) -> None:
        self._db = db
        self._home = home
        self._clock = clock
        self._devices = CaList(DEVICES, home.devices_crl)
        self.all = (self._devices, CaList(SERVICES, home.services_crl))
        self._one_at_a_time = asyncio.Lock()  # several brokers' doors ask

    @property
    def expiry(self) -> dict[str, datetime]:
        """When each list runs out, by CA."""
        return {one.name: one.crl.expires for one in self.all if one.crl is not None}

    @property
    def number(self) -> int:
        """Of the newest list of devices."""
        return self._devices.crl.number if self._devices.crl else 0

    async def prepare(self) -> None:
        """Write both lists anew; call it before the broker starts.

        Raises:
            OperationError: There is no list that is still good: a broker would refuse everybody.
        """
        try:
            await self._renew(self.all)
        except OperationError as error:
            for one in self.all:
                one.crl = await asyncio.to_thread(read_crl, one.path)
                if one.crl.expires <= self._clock.now():
                    raise OperationError(f"{one.path}: has run out, and no broker lets anybody in; {error}") from error
            log.error("revocation lists not renewed", why=str(error))

    async def renew(self, revoked: crls.Revoked) -> None:
        """Write those that are due: old, or without somebody who is revoked.

        Raises:
            OperationError: One could not be written; the others were.
        """
        async with self._one_at_a_time:
            try:
                await self._renew([one for one in self.all if self._is_due(one, revoked)])
            finally:
                await self._watch_age()

    def _is_due(self, one: CaList, revoked: crls.Revoked) -> bool:
        now = self._clock.now()
        if one.crl is None or now - one.crl.issued >= CRL_RENEWAL or one.crl.issued > now:
            return True
        return one is self._devices and not revoked.keys() <= one.crl.revoked.keys()

    async def _renew(self, due: Sequence[CaList]) -> None:
        """Lists from the rows and from what older lists name; one that cannot be written keeps no other back."""
        failed: list[OperationError] = []
        for one in due:
            try:
                await self._write(one)
            except OperationError as error:
                failed.append(error)
        if failed:
            raise failed[0]

    async def _write(self, one: CaList) -> None:
        now = self._clock.now()
        named: crls.Revoked = {}
        if one is self._devices:
            async with self._db.read() as conn:
                named = await certificates.revoked(conn, now - CRL_KEPT)
        found = await asyncio.to_thread(self._authorities, one)
        if not found:  # its key is elsewhere: the list comes from there
            one.crl, one.probe = await asyncio.to_thread(read_crl, one.path), None
            self._require_outside(one, named)
        else:
            probe = crls.make_probe(found[0], now)
            one.crl = await asyncio.to_thread(crls.write_crl, one.path, found[0], named, now, probe, found[1:])
            one.probe = probe
            log.info("revocation list written", ca=one.name, number=one.crl.number, revoked=len(one.crl.revoked))
        await self._require_each(one)
        if one is self._devices:
            await self._close_named(one.crl, now)

    def _authorities(self, one: CaList) -> list[Authority]:
        try:
            return crls.authorities(self._home.ca, one.name)
        except NotFoundError:
            if one.path.is_file():
                return []
            raise

    async def _require_each(self, one: CaList) -> None:
        """Each CA in the file must have one."""
        missing = await asyncio.to_thread(crls.without_list, self._home.ca / f"{one.name}.pem", one.path)
        if missing:
            text = f"{', '.join(missing)} in {one.name}.pem: no revocation list, so all its clients are refused; "
            text += f"put its key into {self._home.ca}, or append its own list to {one.path.name}"
            log.error("revocation list missing", ca=one.name, issuers=missing)
            async with self._db.begin() as conn:
                await events.add(conn, "crl_missing", text, self._clock.now())

    def _require_outside(self, one: CaList, revoked: crls.Revoked) -> None:
        missing = revoked.keys() - (one.crl.revoked.keys() if one.crl else set())
        if missing:
            serials = ", ".join(f"{serial:x}" for serial in sorted(missing)[:3])
            raise NotYetError(
                f"{one.path}: its CA's key is not here, and {len(missing)} revoked certificates are not in it "
                f"({serials}); revoke them at your CA and put its new list there"
            )

    async def _close_named(self, crl: Crl, now: datetime) -> None:
        """Who is named by the list is closed here too."""
        async with self._db.read() as conn:
            ids = await certificates.owners(conn, crl.revoked)
        if not ids:
            return
        async with self._db.begin() as conn:
            for name in ids:
                device = await devices.get(conn, name)
                if device is not None and device.state == DeviceState.ENROLLED:
                    await closing.close(conn, device, DeviceState.REVOKED, NAMED, now)
                    log.warning("device revoked", device_id=name, why=NAMED)
                await certificates.revoke(conn, name, now)

    async def _watch_age(self) -> None:
        now = self._clock.now()
        for one in self.all:
            if one.crl is None or one.crl.expires - now > CRL_ALARM or one.alarmed == one.crl.number:
                continue
            left_h = (one.crl.expires - now).total_seconds() / 3600
            text = (
                f"revocation list {one.crl.number} of {one.name} was not renewed: {left_h:.0f} h until every client of "
                f"it is refused; see that {one.path} can be written"
            )
            log.error("revocation list not renewed", ca=one.name, left_h=round(left_h, 1))
            async with self._db.begin() as conn:
                await events.add(conn, "crl_not_renewed", text, now)
            one.alarmed = one.crl.number
