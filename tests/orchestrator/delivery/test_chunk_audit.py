"""What a broker lost or holds differently is found by reading back, and published again."""

import os

from orchestrator.storage import chunk_audits, published
from tests.orchestrator.delivery.chunk_yard import DAY_S, ChunkYard, chunk_yard
from tests.orchestrator.delivery.lab import RELEASE, Lab


async def heal(yard: ChunkYard) -> None:
    """To the end of what is in doubt."""
    while yard.audit.is_healing:
        await yard.audit.heal(yard.session)


async def last_serial(lab: Lab) -> int:
    """Of what was published last."""
    async with lab.db.read() as conn:
        return await published.last_serial(conn, "main")


async def test_what_the_marker_leaves_in_doubt_is_looked_at_once(lab: Lab) -> None:
    """Only chunks that are lost or different are sent; after it nothing is in doubt, for the next connection too."""
    chunks = [os.urandom(100) for _ in range(40)]
    await lab.add_release(chunks)
    async with chunk_yard(lab) as yard:
        await yard.publish(RELEASE)
        await yard.spoil(chunks[3], b"")
        await yard.spoil(chunks[30], b"something else")
        await yard.audit.begin(0, await last_serial(lab))
        await heal(yard)
        assert all(await yard.retains(*chunks))
        assert yard.figure("flagship_chunks_republished_total", reason="lost") == 2
        last = await last_serial(lab)
        await yard.audit.begin(last, last)
        assert not yard.audit.is_healing


async def test_a_healing_that_was_cut_off_goes_on(lab: Lab) -> None:
    """Though the broker's marker says by then that nothing is in doubt."""
    chunks = [os.urandom(100) for _ in range(10)]
    await lab.add_release(chunks)
    async with chunk_yard(lab) as yard:
        await yard.publish(RELEASE)
        await yard.audit.begin(0, await last_serial(lab))
    async with chunk_yard(lab) as yard:
        await yard.spoil(chunks[7], b"")
        last = await last_serial(lab)
        await yard.audit.begin(last, last)
        assert yard.audit.is_healing
        await heal(yard)
        assert await yard.retains(chunks[7]) == [True]


async def test_the_round_comes_when_it_is_due_and_keeps_its_pace(lab: Lab) -> None:
    """Not before a day; then window by window, as far as the rate allows; then not before another day."""
    chunks = [os.urandom(250_000) for _ in range(20)]
    await lab.add_release(chunks)
    async with chunk_yard(lab, audit_bytes_s=1000) as yard:
        await yard.publish(RELEASE)
        last = await last_serial(lab)
        await yard.audit.begin(last, last)
        first, *_, latest = sorted(chunks, key=lab.put)
        await yard.spoil(first, b"")
        await yard.spoil(latest, b"")
        assert not await yard.audit.look_around(yard.session)
        yard.clock.advance(DAY_S)
        assert await yard.audit.look_around(yard.session)
        assert not await yard.audit.look_around(yard.session), "4 MB were read at 1 kB/s"
        assert await yard.retains(first, latest) == [True, False]
        yard.clock.advance(DAY_S / 4)
        while await yard.audit.look_around(yard.session):
            yard.clock.advance(DAY_S / 100)
        assert await yard.retains(latest) == [True]
        assert yard.figure("flagship_chunks_republished_total", reason="audit") == 2
        async with lab.db.read() as conn:
            assert (await chunk_audits.load(conn, "main")).after == ""
