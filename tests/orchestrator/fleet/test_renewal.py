"""Renewal: the same request the same certificate, old keys until the new ones are heard, offers wrapped anew."""

from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from sqlalchemy import select

from orchestrator.config import CertificateSettings
from orchestrator.fleet.enrolment import report_key_of
from orchestrator.fleet.renewal import renew, use_new_keys
from orchestrator.model.assignment import Assignment
from orchestrator.model.device import Device, DeviceState
from orchestrator.model.plan import RolloutSpec, StageSpec
from orchestrator.model.rollout import RolloutState
from orchestrator.storage import assignments, devices, dirty, renewals, rollouts
from orchestrator.storage.tables import dirty as dirty_table
from protocol.errors import EnvelopeError, ErrorCode
from protocol.topics import Kind
from tests.orchestrator.fleet.asking import NOW, Keys, Office, renewal


async def add_device(office: Office, keys: Keys, name: str = "d1") -> None:
    """An enrolled device with these keys."""
    device = Device(id=name, product="gateway", hardware="rev-a", certificate_serial="1", enrolled_at=NOW)
    async with office.db.begin() as conn:
        key = report_key_of(keys.device.public_key())
        await devices.insert(conn, device, report_key=key, content_key=keys.public["content_key"])


async def ask(office: Office, message: tuple[Any, str]) -> bool:
    """As the desk does."""
    return await renew(office.db, office.home, office.settings, office.clock, *message)


async def marks(office: Office) -> set[tuple[str, str]]:
    """What delivery is to look at; forgotten by asking."""
    async with office.db.begin() as conn:
        found = {(row.kind, row.key) for row in await conn.execute(select(dirty_table))}
        await conn.execute(dirty_table.delete())
    return found


async def test_the_same_request_is_answered_with_the_same_certificate(bureau: Office) -> None:
    """However often it comes; the device's own keys count until it was heard under the new ones."""
    old, new = Keys(), Keys()
    await add_device(bureau, old)
    message = renewal("d1", new)
    assert await ask(bureau, message)
    assert await marks(bureau) == {("CERT", "d1")}
    async with bureau.db.read() as conn:
        first = await renewals.get(conn, "d1")
    assert not await ask(bureau, message)
    assert await marks(bureau) == {("CERT", "d1")}
    async with bureau.db.read() as conn:
        assert await renewals.get(conn, "d1") == first
        assert (await devices.keys(conn, ["d1"]))["d1"][0]["keyid"] == old.keyid
    assert first is not None
    certificate = x509.load_pem_x509_certificate(first.certificate.encode())
    assert certificate.subject.rfc4514_string() == "CN=d1"
    assert certificate.public_key() == new.device.public_key()


async def test_new_keys_in_use_wrap_open_offers_anew(bureau: Office) -> None:
    """From then on they are the device's; its open offers are marked, closed ones and other devices' are not."""
    old, new = Keys(), Keys()
    await add_device(bureau, old)
    await add_device(bureau, Keys(), "d2")
    spec = RolloutSpec(release="gateway/1.1.0", stages=[StageSpec(name="all", percent=100)])
    async with bureau.db.begin() as conn:
        for name, grant in (("r-1", "download"), ("r-2", "activate"), ("r-3", "closed"), ("r-4", "none")):
            await rollouts.insert(conn, name, spec, RolloutState.RUNNING, NOW)
            rows = [
                Assignment(rollout=name, device=device, stage=0, place=0.5, state="offered", grant=grant)
                for device in ("d1", "d2")
            ]
            await assignments.insert_all(conn, rows)
    await ask(bureau, renewal("d1", new))
    await marks(bureau)
    for _ in range(2):
        await use_new_keys(bureau.db, bureau.clock, "d1", new.keyid)
    assert await marks(bureau) == {("OFFER", "d1/r-1"), ("OFFER", "d1/r-2"), ("CERT", "d1")}
    async with bureau.db.read() as conn:
        report_key, content_key = (await devices.keys(conn, ["d1"]))["d1"]
        device = await devices.get(conn, "d1")
        assert await renewals.get(conn, "d1") is None
    assert (report_key["keyid"], content_key) == (new.keyid, new.public["content_key"])
    assert device is not None and device.certificate_serial != "1"


async def test_a_key_that_is_not_on_its_way_changes_nothing(bureau: Office) -> None:
    """Neither another device's nor one that a later renewal replaced."""
    old, new = Keys(), Keys()
    await add_device(bureau, old)
    await ask(bureau, renewal("d1", new))
    await use_new_keys(bureau.db, bureau.clock, "d1", Keys().keyid)
    await use_new_keys(bureau.db, bureau.clock, "d2", new.keyid)
    async with bureau.db.read() as conn:
        assert (await devices.keys(conn, ["d1"]))["d1"][0]["keyid"] == old.keyid
        assert await renewals.get(conn, "d1") is not None


async def test_a_device_that_lost_its_new_keys_asks_again(bureau: Office) -> None:
    """A later request takes the former one's place, after a pause; an earlier one is a replay."""
    await add_device(bureau, Keys())
    lost, kept = renewal("d1", Keys(), seq=1), renewal("d1", Keys(), seq=2)
    await ask(bureau, lost)
    with pytest.raises(EnvelopeError, match="so soon"):
        await ask(bureau, kept)
    bureau.clock.advance(bureau.settings.certificates.renew_pause_s)
    assert await ask(bureau, kept)
    bureau.clock.advance(3600)
    with pytest.raises(EnvelopeError) as refused:
        await ask(bureau, lost)
    assert refused.value.code is ErrorCode.REPLAY
    async with bureau.db.read() as conn:
        under_way = await renewals.get(conn, "d1")
    assert under_way is not None and under_way.digest == kept[1]


async def test_a_renewal_needs_new_keys_and_an_enrolled_device(bureau: Office) -> None:
    """The old report key or the old content key again is none; nor is one of a device that is not here, or revoked."""
    old = Keys()
    await add_device(bureau, old)
    for bad in (Keys(device=old.device), Keys(content=old.content)):
        with pytest.raises(EnvelopeError, match="needs new keys"):
            await ask(bureau, renewal("d1", bad))
    with pytest.raises(EnvelopeError) as unknown:
        await ask(bureau, renewal("d9", Keys()))
    async with bureau.db.begin() as conn:
        await conn.exec_driver_sql("UPDATE devices SET state = ?", (DeviceState.REVOKED.value,))
    with pytest.raises(EnvelopeError) as revoked:
        await ask(bureau, renewal("d1", Keys()))
    assert unknown.value.code is revoked.value.code is ErrorCode.SCOPE
    assert await marks(bureau) == set()


async def test_a_device_revoked_meanwhile_keeps_no_way_in(bureau: Office) -> None:
    """Its certificate was on its way; being heard under the new key then changes nothing but that it is withdrawn."""
    new = Keys()
    await add_device(bureau, Keys())
    await ask(bureau, renewal("d1", new))
    async with bureau.db.begin() as conn:
        await conn.exec_driver_sql("UPDATE devices SET state = ?", (DeviceState.REVOKED.value,))
    await marks(bureau)
    await use_new_keys(bureau.db, bureau.clock, "d1", new.keyid)
    async with bureau.db.read() as conn:
        device = await devices.get(conn, "d1")
        assert await devices.keys(conn, ["d1"]) == {}
        assert await dirty.take(conn, "main", [Kind.CERT], 5) != []
    assert device is not None and device.certificate_serial == "1"


async def test_lives_are_as_long_as_the_settings_say(bureau: Office) -> None:
    """From the clock that is passed in, not the machine's."""
    await add_device(bureau, Keys())
    bureau.clock.set_wall(datetime(2031, 1, 1, tzinfo=UTC))
    bureau.settings = bureau.settings.model_copy(update={"certificates": CertificateSettings(life_s=30)})
    await ask(bureau, renewal("d1", Keys()))
    async with bureau.db.read() as conn:
        under_way = await renewals.get(conn, "d1")
    assert under_way is not None and under_way.expires == datetime(2031, 1, 1, 0, 0, 30, tzinfo=UTC)
