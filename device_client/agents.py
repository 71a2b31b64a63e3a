"""Several agents in one process: the demo has a whole fleet in one."""

import asyncio
from collections.abc import Sequence

from device_client.service import Agent


async def run_agents(agents: Sequence[Agent]) -> None:
    """Run several agents in this process until cancelled; one that ends by itself ends them all."""
    async with asyncio.TaskGroup() as group:
        for agent in agents:
            group.create_task(agent.run())
