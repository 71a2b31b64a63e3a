"""Certificates on their way: retained for their device, made good on a broker that lost them, cleared when heard."""

from datetime import UTC, datetime, timedelta

from orchestrator.storage import dirty, published, renewals
from orchestrator.storage.renewals import Renewed
from protocol.enrolment import IssuedCertificate
from protocol.envelopes import decode
from protocol.topics import Kind
from tests.orchestrator.delivery.lab import Lab, until

PEM = "-----BEGIN CERTIFICATE-----\nZ29sZGVu\n-----END CERTIFICATE-----\n"


def renewed(device: str) -> Renewed:
    """A certificate on its way."""
    now = datetime.now(UTC)
    return Renewed(
        device=device,
        digest="1f" * 32,
        session=1,
        seq=1,
        report_key={},
        content_key="k" * 44,
        certificate=PEM,
        certificate_serial="1",
        expires=now + timedelta(days=90),
        issued_at=now,
    )


async def test_a_certificate_is_retained_until_it_was_heard_of(lab: Lab) -> None:
    """It stands on the device's own topic; when its row is gone, topic and record go too."""
    topic, now = lab.topics.build(Kind.CERT, device="d1"), datetime.now(UTC)
    async with lab.db.begin() as conn:
        await renewals.put(conn, renewed("d1"))
        await dirty.mark(conn, Kind.CERT, ["d1"], now)
    async with lab.running():

        async def is_there() -> bool:
            return await lab.retained(topic) is not None

        await until(is_there, "the certificate is retained")
        message = decode(await lab.retained(topic) or b"", IssuedCertificate)
        assert (message.device, message.request, message.certificate) == ("d1", "1f" * 32, PEM)
        async with lab.db.begin() as conn:
            await renewals.remove(conn, "d1")
            await dirty.mark(conn, Kind.CERT, ["d1"], now)

        async def is_gone() -> bool:
            async with lab.db.read() as conn:
                return await published.get(conn, lab.settings.broker.name, topic) is None

        await until(is_gone, "the record is gone")
        assert await lab.retained(topic) is None


async def test_a_broker_that_lost_it_gets_it_again(lab: Lab) -> None:
    """What the database says is on its way is made good on the next connection."""
    topic, now = lab.topics.build(Kind.CERT, device="d1"), datetime.now(UTC)
    async with lab.db.begin() as conn:
        await renewals.put(conn, renewed("d1"))
        await dirty.mark(conn, Kind.CERT, ["d1"], now)

    async def is_there() -> bool:
        return await lab.retained(topic) is not None

    async with lab.running():
        await until(is_there, "the certificate is retained")
    async with lab.observer([(topic, 1)]) as session:
        await session.publish(topic, b"", retain=True)
        await session.publish(lab.topics.build(Kind.STATUS_SYNC), b"", retain=True)
    assert not await is_there()
    async with lab.running():
        await until(is_there, "the certificate is retained again")
