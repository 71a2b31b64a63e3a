"""A whole update by the real agent, without a link, from a medium: ends when the update has an outcome and rests.

python -m tests.power.whole_update HOME
"""

import asyncio
import contextlib
import sys
from pathlib import Path

from device_client.config import load
from device_client.service import Agent
from protocol.clock import SystemClock

DEADLINE_S = 60.0
REST_S = 0.3
"""After the outcome: what was staged is cleared."""


async def update(path: Path) -> str:
    """The outcome; raises TimeoutError where there is none in time."""
    agent = Agent(*load(path), SystemClock())
    running = asyncio.create_task(agent.run())
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not ((found := agent.runner.update) and found.is_over):
                if running.done():
                    await running
                await asyncio.sleep(0.02)
        await asyncio.sleep(REST_S)
        return f"{found.state.value} {found.code or ''} {found.detail}".strip()
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


if __name__ == "__main__":
    print("outcome:", asyncio.run(update(Path(sys.argv[1]))), flush=True)
