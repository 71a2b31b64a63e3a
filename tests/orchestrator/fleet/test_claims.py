"""Claims: a certificate that opens nothing else, a list in which nothing is named twice, an end."""

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from sqlalchemy import select

from orchestrator.config_brokers import BrokerSettings
from orchestrator.errors import ConflictError, NotFoundError, OperationError, UsageError
from orchestrator.fleet import claims
from orchestrator.storage import claims as rows
from orchestrator.storage import events
from orchestrator.storage.certificate_tables import expected_devices
from orchestrator.storage.claims import Expected
from tests.orchestrator.fleet.asking import CLAIM, NOW, ROOT, Office


async def test_a_claim_folder_has_all_that_a_device_needs(bureau: Office) -> None:
    """The certificate is by the claims' own CA; brokers, their CA and the root come along, no private key does."""
    made = await bureau.claim("SN-1", "SN-2")
    certificate = x509.load_pem_x509_certificate(made.certificate.encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(bureau.home.claims_ca.read_bytes()))
    assert certificate.subject.rfc4514_string() == f"CN={CLAIM}"
    assert certificate.not_valid_after_utc == NOW + timedelta(days=30)
    assert made.ca == bureau.home.devices_ca.read_text() and made.root == ROOT
    where = [(one.host, one.port) for one in (*made.folder.enrol, *made.folder.brokers)]
    assert where == [("broker.example", 1885), ("broker.example", 1883)]
    async with bureau.db.read() as conn:
        assert [(c.name, listed, got) for c, listed, got in await rows.page(conn)] == [(CLAIM, 2, 0)]
        assert [event["kind"] for event in await events.page(conn)] == ["claim_created"]


def _expected(serial: str, device: str) -> Expected:
    return Expected(serial, CLAIM, device, "gateway", "rev-a", {})


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        pytest.param({"expected": []}, UsageError, "nobody could come", id="nobody"),
        pytest.param({"any_product": "gateway"}, UsageError, "needs a product and a hardware", id="half"),
        pytest.param(
            {"expected": [_expected("A", "a"), _expected("A", "b")]}, UsageError, "serial A is listed 2", id="serial"
        ),
        pytest.param(
            {"expected": [_expected("A", "a"), _expected("B", "a")]}, UsageError, "device a is listed 2", id="device"
        ),
        pytest.param({"expected": [_expected("SN-0", "new")]}, ConflictError, "SN-0 is listed", id="listed"),
        pytest.param({"expected": [_expected("new", "dev-SN-0")]}, ConflictError, "dev-SN-0 is listed", id="taken"),
        pytest.param({"csr": "x" * 40}, UsageError, "not PKCS#10", id="csr"),
        pytest.param({"name": "claim.first"}, ConflictError, "is there already", id="name"),
    ],
)
async def test_a_claim_that_makes_no_sense(
    bureau: Office, changes: dict[str, Any], error: type[OperationError], says: str
) -> None:
    """It is refused with what is wrong, and nothing of it is kept."""
    await bureau.claim("SN-0", name="claim.first")
    with pytest.raises(error, match=says):
        await bureau.claim("SN-9", **changes)
    async with bureau.db.read() as conn:
        assert list(await conn.scalars(select(expected_devices.c.serial))) == ["SN-0"]


async def test_brokers_that_do_not_listen_for_claims(bureau: Office) -> None:
    """A claim that nobody could use is not made; the sentence says what to set."""
    bureau.settings = bureau.settings.model_copy(update={"broker": BrokerSettings()})
    with pytest.raises(ConflictError, match=r"broker\.enrol_port"):
        await bureau.claim("SN-1")


async def test_a_revoked_claim_stays_revoked(bureau: Office) -> None:
    """Once is enough, and a name that is not there is told."""
    await bureau.claim("SN-1")
    for _ in range(2):
        await claims.revoke(bureau.db, bureau.clock, CLAIM)
    with pytest.raises(NotFoundError, match=r"claim\.other"):
        await claims.revoke(bureau.db, bureau.clock, "claim.other")
    async with bureau.db.read() as conn:
        claim = await rows.get(conn, CLAIM)
        assert claim is not None and claim.state == rows.REVOKED
        assert [event["kind"] for event in await events.page(conn)].count("claim_revoked") == 1
