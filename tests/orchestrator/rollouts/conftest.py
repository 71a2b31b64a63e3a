"""A yard for every test."""

from collections.abc import AsyncIterator

import pytest

from tests.orchestrator.rollouts.yard import Yard, open_yard


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    """A database with a published release and no device."""
    async with open_yard() as found:
        yield found
