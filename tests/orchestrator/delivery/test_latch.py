"""The latch: a halt waits for what is on its way, and for nothing else."""

import asyncio

import pytest

from orchestrator.delivery.latch import Latch


async def _waits(task: asyncio.Task[None]) -> bool:
    for _ in range(10):
        await asyncio.sleep(0)
    return not task.done()


async def test_a_barrier_waits_for_what_is_on_its_way() -> None:
    """It passes when the batch is settled, not before."""
    latch = Latch()
    await latch.take()
    barrier = asyncio.create_task(latch.barrier())
    assert await _waits(barrier)
    latch.settle()
    assert not await _waits(barrier)


async def test_a_barrier_passes_where_nothing_is_on_its_way() -> None:
    """Also twice, and when a connection that sent nothing is closed."""
    latch = Latch()
    latch.settle()
    async with asyncio.timeout(1):
        await latch.barrier()
        await latch.barrier()


async def test_a_barrier_that_came_first_passes_before_the_next_batch() -> None:
    """Batches in a row cannot keep a halt waiting: it gets in between two of them."""
    latch, order = Latch(), []

    async def batches() -> None:
        for number in range(3):
            await latch.take()
            order.append(f"batch {number}")
            for _ in range(5):
                await asyncio.sleep(0)
            latch.settle()

    async def halt() -> None:
        await latch.barrier()
        order.append("halt")

    sending = asyncio.create_task(batches())
    await asyncio.sleep(0)
    await asyncio.gather(sending, halt())
    assert order == ["batch 0", "halt", "batch 1", "batch 2"]


async def test_a_barrier_that_is_given_up_blocks_nobody() -> None:
    """The person who halted went away: batches and other halts go on."""
    latch = Latch()
    await latch.take()
    barrier = asyncio.create_task(latch.barrier())
    assert await _waits(barrier)
    barrier.cancel()
    with pytest.raises(asyncio.CancelledError):
        await barrier
    latch.settle()
    async with asyncio.timeout(1):
        await latch.barrier()
        await latch.take()
