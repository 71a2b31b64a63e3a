"""One fleet for the attacks of a module."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.attacks.arena import Arena, arena


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground() -> AsyncIterator[Arena]:
    """The fleet, and the attacker's session."""
    async with arena(codesign=("app",)) as made:
        yield made
