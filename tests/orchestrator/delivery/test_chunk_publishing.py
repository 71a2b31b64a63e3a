"""Chunks on a real broker: once each, proven, and gone when they are cleared."""

import os
from datetime import UTC, datetime

import pytest

from orchestrator.errors import OperationError
from orchestrator.storage import removals
from protocol.topics import Kind
from tests.orchestrator.delivery.chunk_yard import chunk_yard
from tests.orchestrator.delivery.lab import RELEASE, Lab

NOW = datetime.now(UTC)


async def test_only_what_the_broker_lacks_is_sent(lab: Lab) -> None:
    """Once; the bytes that stand there are counted, also by who comes later."""
    await lab.add_release([os.urandom(100) for _ in range(40)])
    async with chunk_yard(lab) as yard:
        assert await yard.publish(RELEASE) == 4000
        assert await yard.publish(RELEASE) == 0
        assert (len(await yard.held()), yard.chunks.retained_bytes) == (40, 4000)
    async with chunk_yard(lab) as yard:
        assert yard.chunks.retained_bytes == 4000


async def test_a_damaged_chunk_is_never_published(lab: Lab) -> None:
    """What the store holds under a name is hashed before it goes out."""
    data = os.urandom(100)
    await lab.add_release([data])
    cid = lab.put(data)
    (path,) = [file for file in lab.home.chunks.rglob("*") if file.is_file() and file.read_bytes() == data]
    path.chmod(0o600)
    path.write_bytes(os.urandom(100))
    async with chunk_yard(lab) as yard:
        with pytest.raises(OperationError, match=rf"chunk {cid[:16]}: missing or damaged"):
            await yard.publish(RELEASE)
    assert await lab.retained(lab.topics.build(Kind.CHUNK, cid=cid)) is None


async def test_a_chunk_that_cannot_be_healed_is_forgotten(lab: Lab) -> None:
    """So that publishing its release again asks for it, instead of believing that the broker has it."""
    good, bad = os.urandom(100), os.urandom(100)
    await lab.add_release([good, bad])
    async with chunk_yard(lab) as yard:
        await yard.publish(RELEASE)
        cids = [lab.put(good), lab.put(bad)]
        lab.chunks.remove([cids[1]])
        await yard.chunks.publish_again(yard.session, cids)
        assert (await yard.held(), yard.chunks.retained_bytes) == ({cids[0]}, 100)
        assert (await yard.on_broker(RELEASE)).state == "lacking"
        with pytest.raises(OperationError, match="import"):
            await yard.publish(RELEASE)


async def test_what_is_cleared_is_gone_and_forgotten(lab: Lab) -> None:
    """Read back as absent; without a marker nothing proves that, and the rows stay."""
    chunks = [os.urandom(100) for _ in range(20)]
    await lab.add_release(chunks)
    async with chunk_yard(lab) as yard:
        await yard.publish(RELEASE)
        page = [(lab.put(data), len(data)) for data in chunks[:18]]
        assert await yard.chunks.clear(yard.session, page, NOW) == 18
        assert await yard.retains(chunks[0], chunks[17], chunks[18]) == [False, False, True]
        assert (len(await yard.held()), yard.chunks.retained_bytes) == (2, 200)
        async with lab.db.read() as conn:
            assert len(await removals.later(conn, lab.settings.broker.name, after=0, limit=100)) == 18
        await yard.session.publish(lab.topics.build(Kind.STATUS_SYNC), b"", qos=1, retain=True)
        yard.chunks._timeout_s = 0.2
        assert await yard.chunks.clear(yard.session, [(lab.put(chunks[18]), 100)], NOW) == 0
        assert len(await yard.held()) == 2
