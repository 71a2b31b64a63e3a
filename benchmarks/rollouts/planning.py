"""How long does it take, and how much memory, to plan a rollout over a large fleet and to place its members?

    python -m benchmarks.rollouts.planning [--devices 1000000] [--json benchmarks/results/planning.json]

A real SQLite database with rows as enrolment leaves them: 1000 sites, a unique label, two components, a report key.
Each measured step runs in a process of its own, as ``flagship serve`` would run it: time by the wall, and the most
memory that the process ever had resident (``VmHWM``), Python and all libraries included. "selector": members are the
devices of a selector that nearly all fulfil, in a canary stage and two shares. "stages": 500 stages by site. "group":
members are a group of all. "placed": the rows of the plan "selector" are written in batches; the longest batch is how
long a writer such as ingest waits at most. "report": all that ``flagship rollout plan`` says, where each device has
a part in an earlier rollout and a tenth of them said why it waits.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks._machine import machine
from orchestrator.model.plan import Members, RolloutSpec, StageSpec, UnavailableLimit
from orchestrator.model.rollout import RolloutState
from orchestrator.rollouts import placing
from orchestrator.rollouts.dry_run import try_out
from orchestrator.rollouts.plans import Plan
from orchestrator.storage import rollouts
from orchestrator.storage.database import Database
from orchestrator.storage.releases import PUBLISHED, ReleaseRecord, insert_release
from protocol.clock import ManualClock
from protocol.manifest import ReleaseInfo
from protocol.versions import compare

GOAL_S, GOAL_MIB = 20.0, 500
SITES = 1000
NOW = datetime(2026, 1, 1, tzinfo=UTC)
RELEASE = "gateway/2.0"
STEPS = ("selector", "stages", "group", "placed", "report")
_AT_ONCE = 10_000
_DEVICE = (
    "INSERT INTO devices (id, product, hardware, components, labels, report_key, content_key, certificate_serial,"
    " state, enrolled_at, session, seq, online, presence_session, refusals, silent, instances, closed_reason)"
    " VALUES (?, 'gateway', ?, ?, ?, ?, ?, ?, 'enrolled', '2026-01-01T00:00:00.000000Z', 1, 9, 1, 1, '[]', 0, '{}', '')"
)


def main() -> None:
    """Fill a database, measure every step, report."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--devices", type=int, default=1_000_000)
    words.add_argument("--json", type=Path)
    words.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    words.add_argument("--database", type=Path, help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.step:
        print(json.dumps(asyncio.run(_measure(given.step, given.database))))
        return
    with tempfile.TemporaryDirectory(prefix="planning-") as directory:
        path = Path(directory) / "db.sqlite"
        asyncio.run(_fill(path, given.devices))
        found = {"devices": given.devices, "database_mib": path.stat().st_size >> 20}
        for step in STEPS:
            found[step] = _in_a_process(step, path)
            print(step, found[step])
    result = {"machine": machine(), "goal": {"plan_s": GOAL_S, "peak_mib": GOAL_MIB}, "results": found}
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


def _in_a_process(step: str, path: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.rollouts.planning", "--step", step, "--database", str(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def _measure(step: str, path: Path) -> dict[str, Any]:
    spec = _spec(step)
    db = await Database.open(path)
    try:
        if step == "report":
            return await _report(db, spec) | {"peak_mib": _peak_mib()}
        begin = time.perf_counter()
        plan = await db.look(lambda conn: _plan(conn, spec))
        found = {"plan_s": round(time.perf_counter() - begin, 1), "members": len(plan), "stages": len(spec.stages)}
        if step == "placed":
            found |= await _place(db, spec, plan)
    finally:
        await db.close()
    return found | {"peak_mib": _peak_mib()}


async def _plan(conn: Any, spec: RolloutSpec) -> Plan:  # noqa: ANN401 - the connection that Database.look brings
    return await placing.plan_members(conn, spec, await placing.load_facts(conn, spec, compare))


async def _report(db: Database, spec: RolloutSpec) -> dict[str, Any]:
    """The rollout of the step before is over; what its devices said stays."""
    async with db.begin() as conn:
        await conn.exec_driver_sql(
            "UPDATE assignments SET updated_at = '2026-01-02T00:00:00.000000Z', state = 'cancelled', reasons = CASE"
            ' WHEN rowid % 10 = 0 THEN \'[{"gate": "power", "code": "low"}]\' ELSE \'[]\' END'
        )
        await rollouts.save(conn, "r-1", state=RolloutState.ABORTED, ended_at=NOW, offers_made=1)
    begin = time.perf_counter()
    report = await try_out(db, ManualClock(NOW), spec, compare)
    took_s = round(time.perf_counter() - begin, 1)
    return {"report_s": took_s, "members": report.members, "waiting": sum(report.readiness.waiting.values())}


async def _place(db: Database, spec: RolloutSpec, plan: Plan) -> dict[str, Any]:
    async with db.begin() as conn:
        await rollouts.insert(conn, "r-1", spec, RolloutState.DRAFT, NOW)
    longest = 0.0
    write = db.write

    async def timed(work: Any) -> Any:  # noqa: ANN401
        nonlocal longest
        begin = time.perf_counter()
        found = await write(work)
        longest = max(longest, time.perf_counter() - begin)
        return found

    db.write = timed  # type: ignore[method-assign]
    begin = time.perf_counter()
    await placing.place(db, "r-1", plan)
    return {"place_s": round(time.perf_counter() - begin, 1), "longest_write_ms": round(longest * 1000)}


def _spec(step: str) -> RolloutSpec:
    shares = [StageSpec(name="tenth", percent=10), StageSpec(name="all", percent=100)]
    limits = (UnavailableLimit(label="site", count=5),)
    match step:
        case "stages":
            stages = [StageSpec(name=f"s{n}", selector=f"site=site-{n}") for n in range(498)]
            return RolloutSpec(release=RELEASE, stages=[*stages, *shares[1:]], max_unavailable=limits)
        case "group":
            return RolloutSpec(release=RELEASE, members=Members(group="everyone"), stages=shares)
    members = Members(selector="line in (1,2,3,4,5,6,7,8,9),component.os=1.0")
    canary = StageSpec(name="canary", selector="site=site-1")
    return RolloutSpec(release=RELEASE, members=members, stages=[canary, *shares], max_unavailable=limits)


async def _fill(path: Path, number: int) -> None:
    info = ReleaseInfo(
        product="gateway", version="2.0", component="os", hardware=["rev-a", "rev-b"], counter=1, space_bytes=1,
        pieces=["0" * 64], chunk_count=1,
    )  # fmt: skip
    record = ReleaseRecord(
        id=RELEASE, product="gateway", version="2.0", component="os", path="gateway/2.0/manifest", length=1,
        sha256="1" * 64, counter=1, info=info.model_dump(mode="json"), wrapped_key=b"", image_bytes=50_000_000,
        chunk_bytes=1, state=PUBLISHED, imported_at=NOW,
    )  # fmt: skip
    db = await Database.open(path)
    try:
        async with db.begin() as conn:
            await insert_release(conn, record, {})
            await conn.exec_driver_sql("INSERT INTO groups (name, created_at) VALUES ('everyone', '2026-01-01')")
        for start in range(0, number, _AT_ONCE):
            rows = list(_devices(start, min(number, start + _AT_ONCE)))
            async with db.begin() as conn:
                await conn.exec_driver_sql(_DEVICE, rows)
                names = [("everyone", row[0]) for row in rows]
                await conn.exec_driver_sql("INSERT INTO group_members (group_name, device) VALUES (?, ?)", names)
    finally:
        await db.close()


def _devices(start: int, end: int) -> Iterator[tuple[str, ...]]:
    for number in range(start, end):
        pem = f"-----BEGIN PUBLIC KEY-----\n{os.urandom(68).hex()}\n-----END PUBLIC KEY-----\n"
        key = {"keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256", "keyval": {"public": pem}, "keyid": pem[30:94]}
        labels = {"site": f"site-{number % SITES}", "line": str(number % 10), "serial": f"S{number:08}"}
        components = {"os": "1.0", "app": f"3.{number % 7}"}
        yield (
            f"gw-{number:07}", "rev-a" if number % 3 else "rev-b", json.dumps(components), json.dumps(labels),
            json.dumps(key), "A" * 44, os.urandom(20).hex(),
        )  # fmt: skip


def _peak_mib() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) >> 10


if __name__ == "__main__":
    main()
