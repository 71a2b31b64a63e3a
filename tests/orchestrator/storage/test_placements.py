"""New assignments by the thousand are the same rows as one by one."""

from orchestrator.model.assignment import FIELDS, Assignment
from orchestrator.storage import assignments, placements
from orchestrator.storage.database import Database
from orchestrator.storage.placements import Row


async def test_rows_are_whole_and_counted(db: Database) -> None:
    """Every column that is not given has the value of a new assignment; counts are what a recount finds."""
    rows = [Row("r-1", f"d{n}", n % 2, n / 10, "l'ab", '["site=l\'ab"]') for n in range(5)]
    given: dict[str, object] = {"site": "l'ab", "scopes": ["site=l'ab"]}
    others = {name: value for name, value in given.items() if name in FIELDS}
    expected = [
        {**Assignment(rollout="r-1", device=row.device, stage=row.stage, place=row.place).to_row(), **others}
        for row in rows
    ]
    async with db.begin() as conn:
        await placements.insert_rows(conn, rows[:3])
        await placements.insert_rows(conn, rows[3:])
        assert [row.to_row() for row in await assignments.of_rollout(conn, "r-1")] == expected
        found = await assignments.load_counts(conn, "r-1")
        assert found == await assignments.recount(conn, "r-1") == {0: {"state:pending": 3}, 1: {"state:pending": 2}}
