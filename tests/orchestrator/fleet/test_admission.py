"""Admission under a claim: the inventory says who somebody is, one device has a serial, an answer may be lost."""

from datetime import timedelta

import pytest
from cryptography import x509
from sqlalchemy import func, select

from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.fleet import claims as claim_room
from orchestrator.fleet.admission import Admission, approve, reject
from orchestrator.fleet.claim_requests import read_request
from orchestrator.model.device import DeviceState
from orchestrator.storage import claims, devices, events
from orchestrator.storage.certificate_tables import enrolments
from protocol.enrolment import ClaimAnswer
from tests.orchestrator.fleet.asking import CLAIM, FLEET, Keys, Office, claim_request


class Desk:
    """Asks as a device does."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.changed: list[str] = []
        self.admission = Admission(
            office.db, office.home, office.settings, office.clock, self.changed.append, max_pending=3
        )

    async def ask(self, raw: bytes, claim: str = CLAIM) -> ClaimAnswer:
        """The answer."""
        return await self.admission.answer(read_request(raw, FLEET, claim))

    async def rows(self) -> int:
        """How many requests are kept."""
        async with self.office.db.read() as conn:
            return int(await conn.scalar(select(func.count()).select_from(enrolments)) or 0)


@pytest.fixture
def desk(bureau: Office) -> Desk:
    """Admission over an empty database."""
    return Desk(bureau)


async def test_a_listed_serial_gets_the_inventorys_identity(desk: Desk) -> None:
    """The name is the inventory's, though the request asks for another; the keys are the asker's."""
    await desk.office.claim("SN-1")
    keys = Keys()
    raw = claim_request(keys)
    answer = await desk.ask(raw)
    certificate = x509.load_pem_x509_certificate((answer.certificate or "").encode())
    assert (answer.status, answer.device) == ("issued", "dev-SN-1")
    assert certificate.subject.rfc4514_string() == "CN=dev-SN-1"
    assert certificate.public_key() == keys.device.public_key()
    assert (answer.nonce, answer.request) == ("n" * 32, read_request(raw, FLEET, CLAIM).digest)
    async with desk.office.db.read() as conn:
        device = await devices.get(conn, "dev-SN-1")
        report_key, content_key = (await devices.keys(conn, ["dev-SN-1"]))["dev-SN-1"]
    assert device is not None and device.labels == {"site": "ulm"}
    assert (report_key["keyid"], content_key) == (keys.keyid, keys.public["content_key"])


async def test_an_answer_that_was_lost_is_given_again(desk: Desk) -> None:
    """The same keys get the same certificate, under a new nonce too; the device is there once."""
    await desk.office.claim("SN-1")
    keys = Keys()
    first = await desk.ask(claim_request(keys))
    again = await desk.ask(claim_request(keys, nonce="m" * 32))
    assert first.certificate == again.certificate and again.nonce == "m" * 32
    assert first.request != again.request
    assert await desk.rows() == 1


async def test_a_second_device_with_a_serial_is_refused_and_told(desk: Desk) -> None:
    """Whoever came first keeps the identity; the operator sees it once, however often it is tried."""
    await desk.office.claim("SN-1")
    await desk.ask(claim_request(Keys()))
    for _ in range(3):
        answer = await desk.ask(claim_request(Keys()))
        assert (answer.status, answer.code, answer.certificate) == ("refused", "taken", None)
    async with desk.office.db.read() as conn:
        kinds = [event["kind"] for event in await events.page(conn)]
    assert kinds.count("enrolment_refused") == 1
    assert await desk.rows() == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        pytest.param({"serial": "SN-9"}, "serial", id="not listed"),
        pytest.param({"hardware": "rev-z"}, "hardware", id="another hardware"),
        pytest.param({"product": "sensor"}, "hardware", id="another product"),
        pytest.param({"device": "dev-none", "serial": "SN-9"}, "serial", id="comes back, never came"),
    ],
)
async def test_what_the_inventory_does_not_say_is_refused(desk: Desk, words: dict[str, str], code: str) -> None:
    """No row is left of it."""
    await desk.office.claim("SN-1")
    answer = await desk.ask(claim_request(Keys(), **{"serial": "SN-1", **words}))
    assert (answer.status, answer.code) == ("refused", code)
    assert await desk.rows() == 0


async def test_a_serial_of_another_claim(desk: Desk) -> None:
    """A claim brings its own devices only, also where it takes any serial."""
    await desk.office.claim("SN-1", name="claim.other")
    await desk.office.claim(any_product="gateway", any_hardware="rev-a")
    assert (await desk.ask(claim_request(Keys(), "SN-1"))).code == "serial"
    assert (await desk.ask(claim_request(Keys(), "SN-2"))).device == "SN-2"
    assert (await desk.ask(claim_request(Keys(), "SN:2"))).code == "serial"  # cannot be an id


async def test_an_expired_and_a_revoked_claim(desk: Desk) -> None:
    """Neither brings anybody, and the asker is told; devices that came before stay."""
    await desk.office.claim("SN-1", "SN-2")
    await desk.ask(claim_request(Keys(), "SN-1"))
    desk.office.clock.advance(31 * 86_400)
    answer = await desk.ask(claim_request(Keys(), "SN-2"))
    assert (answer.status, answer.code) == ("refused", "claim") and "expired" in answer.detail
    await desk.office.claim("SN-3", name="claim.second")
    await claim_room.revoke(desk.office.db, desk.office.clock, "claim.second")
    answer = await desk.ask(claim_request(Keys(), "SN-3", claim="claim.second"), "claim.second")
    assert (answer.status, answer.code) == ("refused", "claim")
    async with desk.office.db.read() as conn:
        assert [device.id for device in await devices.page(conn)] == ["dev-SN-1"]


async def test_a_person_decides(desk: Desk) -> None:
    """A request waits and is kept once; approval admits it and refuses the rival; each is decided once."""
    await desk.office.claim("SN-1", automatic=False)
    keys, rival = Keys(), Keys()
    first = await desk.ask(claim_request(keys))
    assert (first.status, first.detail) == ("pending", f"request e-{keys.keyid[:12]}")
    await desk.ask(claim_request(keys, nonce="m" * 32))
    await desk.ask(claim_request(rival))
    assert await desk.rows() == 2
    await approve(desk.admission, desk.office.db, f"e-{keys.keyid[:12]}", actor="anna")
    assert (await desk.ask(claim_request(keys))).status == "issued"
    refused = await desk.ask(claim_request(rival))
    assert (refused.status, refused.code) == ("refused", "rejected")
    for one in (keys, rival):
        with pytest.raises(ConflictError, match="was decided already"):
            await approve(desk.admission, desk.office.db, f"e-{one.keyid[:12]}")
    with pytest.raises(NotFoundError, match="device pending"):
        await reject(desk.office.db, desk.office.clock, "e-000000000000", "")


async def test_who_decided_stands_in_the_event(desk: Desk) -> None:
    """Two people, one of whom admits and the other refuses."""
    for serial, keys in (("SN-1", Keys()), ("SN-2", Keys())):
        await desk.office.claim(serial, name=f"claim.{serial}", automatic=False)
        await desk.ask(claim_request(keys, serial, claim=f"claim.{serial}"), f"claim.{serial}")
    async with desk.office.db.read() as conn:
        first, second = await claims.pending(conn)
    await approve(desk.admission, desk.office.db, first.id, actor="anna")
    await reject(desk.office.db, desk.office.clock, second.id, "not ours", actor="ben")
    async with desk.office.db.read() as conn:
        found = {event["kind"]: event["actor"] for event in await events.page(conn)}
    assert (found["device_enrolled"], found["enrolment_rejected"]) == ("anna", "ben")


async def test_requests_that_wait_are_bounded(desk: Desk) -> None:
    """A claim cannot fill the table with requests that nobody will read."""
    await desk.office.claim(any_product="gateway", any_hardware="rev-a", automatic=False)
    codes = [(await desk.ask(claim_request(Keys(), f"SN-{number}"))).code for number in range(5)]
    assert codes == ["approval"] * 3 + ["full"] * 2
    assert await desk.rows() == 3


async def test_a_device_comes_back_with_its_former_key(desk: Desk) -> None:
    """New keys take the place of old ones where the old one signed too; a thief with the claim alone is refused."""
    await desk.office.claim("SN-1")
    old, new = Keys(), Keys()
    await desk.ask(claim_request(old))
    thief = await desk.ask(claim_request(Keys(), device="dev-SN-1"))
    assert (thief.status, thief.code) == ("refused", "taken")
    answer = await desk.ask(claim_request(new, "SN-1", old, device="dev-SN-1"))
    assert answer.status == "issued"
    assert desk.changed == ["dev-SN-1", "dev-SN-1"]
    async with desk.office.db.read() as conn:
        report_key, content_key = (await devices.keys(conn, ["dev-SN-1"]))["dev-SN-1"]
        kinds = [event["kind"] for event in await events.page(conn)]
    assert (report_key["keyid"], content_key) == (new.keyid, new.public["content_key"])
    assert kinds.count("device_returned") == 1


async def test_a_revoked_device_does_not_come_back(desk: Desk) -> None:
    """Its former key opens nothing any more."""
    await desk.office.claim("SN-1")
    old = Keys()
    await desk.ask(claim_request(old))
    async with desk.office.db.begin() as conn:
        await conn.exec_driver_sql("UPDATE devices SET state = ?", (DeviceState.REVOKED.value,))
    answer = await desk.ask(claim_request(Keys(), "SN-1", old, device="dev-SN-1"))
    assert (answer.status, answer.code) == ("refused", "revoked")


async def test_a_certificate_that_ran_out_before_it_was_fetched(desk: Desk) -> None:
    """The same keys, asking again after all that time, get a new certificate."""
    await desk.office.claim("SN-1", life=timedelta(days=365))
    keys = Keys()
    first = await desk.ask(claim_request(keys))
    desk.office.clock.advance(desk.office.settings.certificates.life_s + 1)
    again = await desk.ask(claim_request(keys))
    assert again.status == "issued" and again.certificate != first.certificate


async def test_a_ca_that_does_not_issue_changes_nothing(desk: Desk) -> None:
    """The device is not admitted and asks again."""
    await desk.office.claim("SN-1")
    (desk.office.home.ca / "devices-ca.key").unlink()
    with pytest.raises(NotFoundError, match=r"devices-ca\.key"):
        await desk.ask(claim_request(Keys()))
    assert await desk.rows() == 0
    async with desk.office.db.read() as conn:
        assert await claims.pending(conn) == []
