"""A cancellation that comes together with an answer is not lost."""

import asyncio

import pytest
from aiomqtt import MqttError

from protocol.mqtt.cancelling import whole


async def _answered_and_cancelled(error: Exception | None) -> asyncio.Task[None]:
    """A task whose call is answered in the moment in which it is cancelled."""
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def call() -> str:
        return await asyncio.wait_for(answer, 10)  # as aiomqtt does

    async def work() -> None:
        await whole(call())
        await asyncio.sleep(0)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    if error:
        answer.set_exception(error)
    else:
        answer.set_result("yes")
    task.cancel()
    await asyncio.wait({task})
    return task


@pytest.mark.parametrize("error", [None, MqttError("no")], ids=["answer", "refusal"])
async def test_a_cancellation_that_comes_with_the_answer_holds(error: Exception | None) -> None:
    """Whatever the answer was."""
    assert (await _answered_and_cancelled(error)).cancelled()


async def test_an_answer_passes_through() -> None:
    """Also in a task that was cancelled before and cleans up: a farewell is still said."""

    async def call() -> str:
        await asyncio.sleep(0)
        return "bye"

    async def work() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return await whole(call())
        return ""

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "bye"
