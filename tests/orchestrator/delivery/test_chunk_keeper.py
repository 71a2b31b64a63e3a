"""A broker that does not keep a chunk is named, and goes on getting everything else.

An empty chunk stands for what a broker acknowledges and forgets: an empty retained message is none.
"""

import os

from orchestrator.delivery.delivery import Delivery
from orchestrator.metrics import Metrics
from orchestrator.storage import published, releases
from orchestrator.storage.published import Publication
from protocol.clock import SystemClock
from protocol.topics import Kind
from tests.orchestrator.delivery.lab import RELEASE, Lab, until

FORGOTTEN = b""


async def _delivery(lab: Lab, metrics: Metrics) -> Delivery:
    """Over a published release with one chunk that the broker does not keep."""
    await lab.add_release([FORGOTTEN, os.urandom(100)])
    async with lab.db.begin() as conn:
        await releases.set_state(conn, RELEASE, releases.PUBLISHED)
    timing = lab.settings.timing.model_copy(update={"read_back_s": 0.05})
    lab.settings = lab.settings.model_copy(update={"timing": timing})
    return Delivery(lab.db, lab.home, lab.settings, lab.signer, lab.chunks, SystemClock(), metrics=metrics)


async def test_a_chunk_that_the_broker_does_not_keep_ends_no_connection(lab: Lab) -> None:
    """The reason is shown while the broker is reached."""
    delivery = await _delivery(lab, Metrics())

    async def named() -> bool:
        return delivery.connected and "not delivered back" in delivery.why

    async with lab.running(delivery):
        await until(named, "the broker is reached, and what it does not keep is named")


async def test_a_want_that_cannot_be_honoured_holds_up_nothing(lab: Lab) -> None:
    """It is given up; the device wants it again, or fetches it elsewhere."""
    metrics = Metrics()
    delivery = await _delivery(lab, metrics)
    cid = lab.put(FORGOTTEN)
    async with lab.db.begin() as conn:
        topic = lab.topics.build(Kind.CHUNK, cid=cid)
        await published.record(conn, "main", [Publication(kind=Kind.CHUNK, topic=topic, digest=cid)])

    async def given_up() -> bool:
        labels = {"reason": "not_on_broker"}
        return metrics.registry.get_sample_value("flagship_wants_dropped_total", labels) == 1

    delivery.want([cid])
    async with lab.running(delivery):
        await until(given_up, "the want is given up")
