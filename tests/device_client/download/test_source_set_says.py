"""What people read of several sources; what these do is in ``test_source_set``."""

import asyncio

from tests.device_client.download.test_source_set import CIDS, Scene


async def test_one_that_is_at_work_is_not_waited_for() -> None:
    """A directory that two windows are read from takes no third and is not ready meanwhile; chunks come from it."""
    scene = Scene()
    scene.broker.holds = True
    task = asyncio.create_task(scene.set.collect(CIDS[:2], 60))
    for _ in range(3):
        await asyncio.sleep(0)
    scene.broker.is_ready = scene.mirror.is_ready = False
    assert scene.set.says == "from mqtt"
    scene.broker.stop.set()
    await task
    assert scene.set.says == "waits for mqtt, https://mirror"
