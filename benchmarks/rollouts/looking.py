"""What does a look of the engine cost, whatever the size of the fleet?

    python -m benchmarks.rollouts.looking [--members 1000 100000 1000000] [--rounds 15] [--json FILE]

A real SQLite database with one running rollout in which many knobs are in use: time limits, permits by site over 5000
sites, a budget of bytes, retries, a pace that grows. "idle": a look that finds nothing to do, with its reads.
"offers": one that offers to 500 devices. "grants": one that answers 500 that ask, under permits. "failures": one that
judges 500 failed attempts. "reports": ingest of 500 readiness reports in one transaction. "halt": from the order to its
commit. Wall time, milliseconds, medians; each with what it writes.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._machine import machine
from orchestrator.config import Settings
from orchestrator.model.plan import RolloutSpec, StageSpec
from orchestrator.model.rollout import RolloutState, StageState
from orchestrator.rollouts import operations
from orchestrator.rollouts.controller import Controller
from orchestrator.rollouts.operations import Order
from orchestrator.storage import assignments, placements, rollouts
from orchestrator.storage.assignments import Change
from orchestrator.storage.database import Database
from orchestrator.storage.engine_rows import EngineRows
from orchestrator.storage.placements import Row
from orchestrator.storage.releases import PUBLISHED, ReleaseRecord, insert_release
from orchestrator.storage.reports import Incoming, apply_batch
from protocol.clock import ManualClock
from protocol.manifest import ReleaseInfo
from protocol.reports import Readiness
from protocol.states import Phase

GOAL_MS = 50.0
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BATCH, SITES = 500, 5000
_DEVICE = (
    "INSERT INTO devices (id, product, hardware, components, labels, report_key, content_key, certificate_serial,"
    " state, enrolled_at, session, seq, online, presence_session, refusals, silent, instances, closed_reason)"
    " VALUES (?, 'gateway', 'rev-a', '{}', '{}', '{}', 'x', '', 'enrolled', '2026-01-01T00:00:00.000000Z', 0, 0, 1, 1,"
    " '[]', 0, '{}', '')"
)


def main() -> None:
    """Measure each size."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--members", type=int, nargs="*", default=[1_000, 100_000, 1_000_000])
    words.add_argument("--rounds", type=int, default=15)
    words.add_argument("--json", type=Path)
    given = words.parse_args()
    found = []
    for members in given.members:
        for stages in (3, 500):
            found.append(asyncio.run(_measure(members, stages, given.rounds)))
            print(found[-1], flush=True)
    result = {"machine": machine(), "goal_ms": GOAL_MS, "looks": found}
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


def _spec(stages: int) -> RolloutSpec:
    return RolloutSpec.model_validate(
        {
            "release": "gateway/2.0",
            "stages": [StageSpec(name=f"s{n}", percent=100 * (n + 1) / stages) for n in range(stages)],
            "pace_per_minute": 9e5,
            "pace_growth": {"factor": 1.1, "every": 1000, "max_per_minute": 1e6},
            "halt_ratio": 1.0,
            "max_unavailable": [{"label": "site", "count": 10**6}],
            "site_bytes_per_hour": 10**15,
            "timeouts": {"queued_s": "7d", "downloading_s": "7d", "installing_s": "7d", "verifying_s": "7d"},
            "retries": {"install": {"times": 10, "backoff_s": 86_400}},
        }
    )


async def _measure(members: int, stages: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="looking-") as directory:
        db = await Database.open(Path(directory) / "db.sqlite")
        try:
            clock = ManualClock(NOW)
            await _fill(db, members, stages)
            controller = Controller(db, clock, Settings(), lambda: None)
            await controller.look()
            figures = {
                "idle_ms": await _median(controller.look, rounds),
                "offers_ms": await _median(controller.look, 3, lambda: _make_ready(db, clock)),
                "grants_ms": await _median(controller.look, 1, lambda: _make_ask(db)),
                "failures_ms": await _median(controller.look, 1, lambda: _make_fail(db)),
                "reports_ms": await _reports(db, clock, members),
                "halt_ms": await _halts(db, clock, rounds),
            }
        finally:
            await db.close()
    return {"members": members, "stages": stages, **figures}


async def _median(
    work: Callable[[], Awaitable[object]], rounds: int, before: Callable[[], Awaitable[object]] | None = None
) -> float:
    times = []
    for _ in range(rounds):
        if before is not None:
            await before()
        begin = time.perf_counter()
        await work()
        times.append((time.perf_counter() - begin) * 1000)
    return round(statistics.median(times), 2)


async def _fill(db: Database, members: int, stages: int) -> None:
    info = ReleaseInfo(
        product="gateway", version="2.0", component="app", hardware=["rev-a"], counter=0, space_bytes=1,
        pieces=["0" * 64], chunk_count=1,
    )  # fmt: skip
    record = ReleaseRecord(
        id="gateway/2.0", product="gateway", version="2.0", component="app", path="gateway/2.0/m", length=1,
        sha256="1" * 64, counter=0, info=info.model_dump(mode="json"), wrapped_key=b"", image_bytes=1000, chunk_bytes=1,
        state=PUBLISHED, imported_at=NOW,
    )  # fmt: skip
    spec = _spec(stages)
    async with db.begin() as conn:
        await insert_release(conn, record, {})
        await rollouts.insert(conn, "r-1", spec, RolloutState.RUNNING, NOW)
        await rollouts.save(conn, "r-1", started_at=NOW)
    for start in range(0, members, 10_000):
        numbers = range(start, min(members, start + 10_000))

        async def write(conn: Any, numbers: range = numbers) -> None:  # noqa: ANN401
            raw = conn.sync_connection.connection.cursor()
            raw.executemany(_DEVICE, [(f"d{n:07}",) for n in numbers])
            await placements.insert_rows(
                conn,
                [
                    Row("r-1", f"d{n:07}", n % stages, n / members, f"s{n % SITES}", json.dumps([f"site=s{n % SITES}"]))
                    for n in numbers
                ],
            )

        await db.write(write)
    async with db.begin() as conn:
        found = await rollouts.load_stages(conn, "r-1")
        sizes = [members // stages + (n < members % stages) for n in range(stages)]
        opened = [
            replace(stage, members=sizes[n], state=StageState.OPEN if n == 0 else stage.state, opened_at=NOW)
            for n, stage in enumerate(found)
        ]
        await rollouts.save_stages(conn, opened)


async def _rows(db: Database, state: str, limit: int) -> list[Any]:
    async with db.read() as conn:
        rows = EngineRows(conn, "r-1")
        found = await rows.untouched(10 * limit) if state == "pending" else await rows.queued("", limit)
        return [row for row in found if row.stage == 0][:limit] if state == "pending" else found


async def _save(db: Database, changes: list[Change]) -> None:
    await db.write(lambda conn: assignments.save_all(conn, changes))


async def _make_ready(db: Database, clock: ManualClock) -> None:
    clock.advance(1)
    async with db.read() as conn:
        found = [r for r in await assignments.of_rollout(conn, "r-1", limit=200 * BATCH) if r.stage == 0]
    fresh = [row for row in found if row.state == "pending" and not row.ready][:BATCH]
    await _save(db, [(row, replace(row, ready=True)) for row in fresh])


async def _make_ask(db: Database) -> None:
    rows = await _rows(db, "offered", BATCH)
    await _save(db, [(row, replace(row, state="fetched", asking=True, nonce=f"n-{row.device}")) for row in rows])


async def _make_fail(db: Database) -> None:
    rows = await _rows(db, "offered", BATCH)
    await _save(db, [(r, replace(r, state="failed", code="E_INSTALL", settled=False, asking=False)) for r in rows])


async def _reports(db: Database, clock: ManualClock, members: int) -> float:
    """Each device is heard once."""
    times = []
    for batch in range(3):
        items = [
            Incoming(
                f"d{n:07}",
                Readiness(
                    fleet="f", issued=NOW, device=f"d{n:07}", session=batch + 1, seq=n + 1, rollout="r-1",
                    nonce=f"nonce-{n:07}", phase=Phase.DOWNLOAD, ready=False,
                ),
            )
            for n in range(min(members, BATCH))
        ]  # fmt: skip
        begin = time.perf_counter()
        await db.write(partial(apply_batch, batch=items, now=clock.now()))
        times.append((time.perf_counter() - begin) * 1000)
    return round(statistics.median(times), 2)


async def _halts(db: Database, clock: ManualClock, rounds: int) -> float:
    """From the order until it is written; resumed in between."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        await operations.order(db, clock, "r-1", Order(verb="halt", reason="smoke"))
        times.append((time.perf_counter() - begin) * 1000)
        await operations.order(db, clock, "r-1", Order(verb="resume", reason="over"))
    return round(statistics.median(times), 2)


if __name__ == "__main__":
    main()
