"""Whether a release stands where devices find it, as the rows of its brokers say."""

import pytest

from orchestrator.storage import chunk_keeping
from orchestrator.storage.chunk_keeping import Held
from orchestrator.storage.database import Database

RELEASE = "g/1"


@pytest.mark.parametrize(
    ("states", "waits"),
    [
        ([], False),
        ([Held.LACKING], False),
        ([Held.WHOLE, Held.CLEARED], False),
        ([Held.MIRRORS_ONLY, Held.CLEARED], False),
        ([Held.CLEARED, Held.CLEARING], True),
        ([Held.CLEARED, Held.LACKING], True),
    ],
)
async def test_offers_wait_for_what_was_cleared_and_is_whole_nowhere(
    db: Database, states: list[Held], waits: bool
) -> None:
    """A broker that refused the release, or was down all the time, does not count as one that has it."""
    async with db.begin() as conn:
        for number, state in enumerate(states):
            await chunk_keeping.set_held(conn, f"b{number}", RELEASE, state)
        assert await chunk_keeping.not_deliverable(conn, [RELEASE]) == ({RELEASE} if waits else set())
