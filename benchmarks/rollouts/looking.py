"""What does a look of the engine cost, whatever the size of the fleet?

    python -m benchmarks.rollouts.looking [--members 1000 100000 1000000] [--rounds 7] [--json FILE]

A real SQLite database for each size with one running rollout in which many knobs are in use: time limits, permits by
site (one device at a time in each of 5000 sites; in 500 of them one more waits), a budget of bytes, retries, a pace
that grows. "idle": a look that finds nothing to do, with its reads. "offers": one that offers to 500 devices. "grants":
one that answers 500 that ask, under permits. "failures": one that judges 500 failed attempts. "reports": ingest of 500
readiness reports in one transaction. "halt": from the order to its commit. All sizes take turns in each round; figures
are medians of milliseconds by the wall, and of CPU time of this process, each with what it writes. What is counted is
looked at: a look that did less than was asked of it ends the benchmark.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._machine import machine
from orchestrator.config import Settings
from orchestrator.model.assignment import Assignment
from orchestrator.model.plan import RolloutSpec, StageSpec
from orchestrator.model.rollout import RolloutState, StageState
from orchestrator.rollouts import operations, steps
from orchestrator.rollouts.controller import Controller
from orchestrator.rollouts.operations import Order
from orchestrator.storage import assignments, placements, rollouts
from orchestrator.storage.database import Database
from orchestrator.storage.placements import Row
from orchestrator.storage.releases import PUBLISHED, ReleaseRecord, insert_release
from orchestrator.storage.reports import Incoming, apply_batch
from protocol.clock import ManualClock
from protocol.manifest import ReleaseInfo
from protocol.reports import Readiness
from protocol.states import Phase

GOAL_MS = 50.0
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE, GRANT = timedelta(hours=24), timedelta(minutes=16)
BATCH, SITES, WAITING = 500, 5000, 500
_DEVICE = (
    "INSERT INTO devices (id, product, hardware, components, labels, report_key, content_key, certificate_serial,"
    " state, enrolled_at, session, seq, online, presence_session, refusals, silent, instances, closed_reason)"
    " VALUES (?, 'gateway', 'rev-a', '{}', '{}', '{}', 'x', '', 'enrolled', '2026-01-01T00:00:00.000000Z', 0, 0, 1, 1,"
    " '[]', 0, '{}', '')"
)


@dataclass
class Case:
    """A size: its database, and who looks. ``times``: (wall, CPU) in ms by what was done."""

    members: int
    stages: int
    db: Database
    clock: ManualClock
    controller: Controller
    session: int = 0
    times: defaultdict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def ids(self) -> list[str]:
        """The devices that are moved; the first stage begins with them."""
        return [f"d{number:07}" for number in range(BATCH)]

    async def time(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        """Do it, and note what it took."""
        wall, cpu = time.perf_counter(), time.process_time()
        await work()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        self.times[name].append((wall * 1000, cpu * 1000))

    async def rows(self) -> list[Assignment]:
        """The devices that are moved, as they stand."""
        async with self.db.read() as conn:
            return list((await assignments.get_many(conn, [("r-1", device) for device in self.ids])).values())

    async def change(self, change: Callable[[Assignment], Assignment]) -> None:
        """Move them, as if they had said so."""
        changes = [(row, change(row)) for row in await self.rows()]
        await self.db.write(lambda conn: assignments.save_all(conn, changes))

    async def expect(self, what: str, holds: Callable[[Assignment], bool]) -> None:
        """See that a look did all that it was to do."""
        if (found := sum(map(holds, await self.rows()))) != BATCH:
            raise RuntimeError(f"{self.members} members, {self.stages} stages: expected {BATCH} {what}, found {found}")

    def figures(self) -> dict[str, float]:
        """Medians."""
        found: dict[str, float] = {"members": self.members, "stages": self.stages}
        for name, times in self.times.items():
            found[f"{name}_ms"], found[f"{name}_cpu_ms"] = (
                round(statistics.median(column), 2) for column in zip(*times, strict=True)
            )
        return found


def main() -> None:
    """Measure all sizes."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--members", type=int, nargs="*", default=[1_000, 100_000, 1_000_000])
    words.add_argument("--rounds", type=int, default=7)
    words.add_argument("--json", type=Path)
    given = words.parse_args()
    found = asyncio.run(_measure([(members, stages) for members in given.members for stages in (3, 500)], given.rounds))
    for row in found:
        print(row)
    result = {"machine": machine(), "goal_ms": GOAL_MS, "rounds": given.rounds, "looks": found}
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
            "max_unavailable": [{"label": "site", "count": 1}],
            "site_bytes_per_hour": 10**15,
            "timeouts": {"queued_s": "7d", "downloading_s": "7d", "installing_s": "7d", "verifying_s": "7d"},
            "retries": {"install": {"times": 10, "backoff_s": 86_400}},
        }
    )


async def _measure(sizes: Sequence[tuple[int, int]], rounds: int) -> list[dict[str, float]]:
    async with AsyncExitStack() as stack:
        cases = []
        for members, stages in sizes:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="looking-")))
            db = await Database.open(place / "db.sqlite")
            stack.push_async_callback(db.close)
            clock = ManualClock(NOW)
            await _fill(db, members, stages)
            await _hold_permits(db, members)
            case = Case(members, stages, db, clock, Controller(db, clock, Settings(), lambda: None))
            await case.controller.look()
            cases.append(case)
        for number in range(rounds + 1):
            for case in cases:
                await _one_round(case)
                if not number:
                    case.times.clear()  # the first one warms up
        return [case.figures() for case in cases]


async def _one_round(case: Case) -> None:
    look, fresh = case.controller.look, await case.rows()
    case.clock.advance(1)
    for _ in range(3):
        await case.time("idle", look)
    await case.change(lambda row: replace(row, ready=True))
    await case.time("offers", look)
    await case.expect("offers", lambda row: row.grant == "download")
    await case.change(lambda row: replace(row, state="fetched", asking=True, nonce=f"n-{row.device}"))
    await case.time("grants", look)
    await case.expect("grants", lambda row: row.grant == "activate")
    await case.change(lambda row: replace(row, state="failed", code="E_INSTALL", settled=False, asking=False))
    await case.time("failures", look)
    await case.expect("failures that are judged", lambda row: row.settled and bool(row.held_by))
    await case.time("reports", partial(_report, case))
    await case.time(
        "halt", partial(operations.order, case.db, case.clock, "r-1", Order(verb="halt", reason="measured"))
    )
    await operations.order(case.db, case.clock, "r-1", Order(verb="resume", reason="measured"))
    before = {row.device: row for row in fresh}
    await case.change(lambda row: before[row.device])


async def _report(case: Case) -> None:
    """Each device is heard once."""
    case.session += 1
    items = [
        Incoming(
            device,
            Readiness(
                fleet="f", issued=NOW, device=device, session=case.session, seq=1, rollout="r-1",
                nonce=f"nonce-{case.session}-{device}", phase=Phase.DOWNLOAD, ready=False,
            ),
        )
        for device in case.ids
    ]  # fmt: skip
    applied = await case.db.write(partial(apply_batch, batch=items, now=case.clock.now()))
    if applied.rejected:
        raise RuntimeError(f"reports were not taken: {applied.rejected[0]}")


async def _hold_permits(db: Database, members: int) -> None:
    """In some sites a device holds the permit and another one waits for it."""
    waiting = min(WAITING, members // 10)
    async with db.read() as conn:
        pairs = [("r-1", f"d{members - 1 - number:07}") for number in range(2 * waiting)]
        found = list((await assignments.get_many(conn, pairs)).values())
    changes, holders = [], set[str]()
    for row in found:
        offered = replace(steps.offer(row, NOW, LEASE), state="fetched", nonce=f"n-{row.device}")
        if row.site in holders:
            changes.append((row, steps.hold_for_scope(replace(offered, asking=True), row.scopes[0], NOW)))
        else:
            changes.append((row, replace(steps.grant(offered, NOW, LEASE, GRANT), state="installing")))
            holders.add(row.site)
    await db.write(lambda conn: assignments.save_all(conn, changes))


def _stage_of(number: int, stages: int) -> int:
    """Half of the members, those that are moved first of all, are in the first stage."""
    return 0 if number < BATCH or number % 2 else number // 2 % stages


def _site_of(number: int, members: int) -> str:
    """The last ones share sites by two, which are theirs alone."""
    from_end = members - 1 - number
    waiting = min(WAITING, members // 10)
    return f"w{from_end // 2}" if from_end < 2 * waiting else f"s{number % (SITES - WAITING)}"


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
        await rollouts.save(conn, "r-1", started_at=NOW, pace_at=NOW)
    for start in range(0, members, 10_000):
        numbers = range(start, min(members, start + 10_000))

        async def write(conn: Any, numbers: range = numbers) -> None:  # noqa: ANN401
            raw = conn.sync_connection.connection.cursor()
            raw.executemany(_DEVICE, [(f"d{n:07}",) for n in numbers])
            await placements.insert_rows(
                conn,
                [
                    Row("r-1", f"d{n:07}", _stage_of(n, stages), n / members, site, json.dumps([f"site={site}"]))
                    for n in numbers
                    for site in (_site_of(n, members),)
                ],
            )

        await db.write(write)
    async with db.begin() as conn:
        found = await rollouts.load_stages(conn, "r-1")
        sizes = Counter(_stage_of(n, stages) for n in range(members))
        opened = [
            replace(stage, members=sizes[n], state=StageState.OPEN if n == 0 else stage.state, opened_at=NOW)
            for n, stage in enumerate(found)
        ]
        await rollouts.save_stages(conn, opened)


if __name__ == "__main__":
    main()
