"""Plays scenarios on the real engine and writes down what it decided: ``python -m tests.histories.record``."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from orchestrator.model.plan import StageSpec
from orchestrator.storage import audit
from protocol.errors import ErrorCode
from protocol.reports import Reason
from protocol.states import State
from tests.orchestrator.rollouts.yard import NOW, Yard, open_yard, plan

HERE = Path(__file__).parent
HALVES = (StageSpec(name="canary", percent=50), StageSpec(name="rest", percent=100))
BUSY = Reason(gate="busy", code="busy")
Scenario = Callable[[Yard], Awaitable[None]]


async def _looks(yard: Yard) -> None:
    while await yard.look() == 0:
        pass


async def _ready(yard: Yard, rollout: str = "r-1") -> None:
    for row in await yard.rows(rollout):
        if row.state == "pending" and not row.ready:
            await yard.ready(rollout, row.device)
    await _looks(yard)


async def _say(yard: Yard, state: State, only: str = "", rollout: str = "r-1", **more: Any) -> None:
    for row in await yard.rows(rollout):
        if row.state not in ("pending", "succeeded") and not row.is_terminal and only in ("", row.device):
            await yard.report(rollout, row.device, state, attempt=row.attempt, **more)
    await _looks(yard)


async def all_goes_well(yard: Yard) -> None:
    """Two stages, a soak, a pace."""
    await yard.add_devices(["d1", "d2", "d3", "d4"])
    await yard.run(plan(*HALVES, soak_s=60, pace_per_minute=60))
    await _looks(yard)
    for _ in range(2):
        for _ in range(3):
            await _ready(yard)
            yard.clock.advance(2)
        for state in (State.FETCHED, State.INSTALLING, State.VERIFYING, State.SUCCEEDED):
            await _say(yard, state)
        yard.clock.advance(60)
        await _looks(yard)


async def a_canary_halts(yard: Yard) -> None:
    """By class and share; a person resumes, and it halts anew."""
    await yard.add_devices(["d1", "d2", "d3", "d4"])
    await yard.run(plan(*HALVES, halt_rules=[{"classes": ["health"], "count": 1}], halt_ratio=1.0, success_ratio=0.1))
    await _ready(yard)
    await _say(yard, State.ROLLED_BACK, code=ErrorCode.HEALTH)
    await yard.order("r-1", "resume", "looked into it")
    await _looks(yard)
    await _ready(yard)
    await _say(yard, State.ROLLED_BACK, code=ErrorCode.HEALTH)


async def tries_and_times(yard: Yard) -> None:
    """Retries with back-off, time limits, an end."""
    await yard.add_devices(["d1", "d2", "d3"])
    rules: dict[str, Any] = {
        "retries": {"download": {"times": 1, "backoff_s": 30}}, "timeouts": {"queued_s": 300, "verifying_s": 100},
        "end_at": NOW + timedelta(hours=1), "halt_ratio": 1.0,
    }  # fmt: skip
    await yard.run(plan(**rules))
    await _ready(yard)
    await _say(yard, State.FAILED, only="d1", code=ErrorCode.SLOW)
    await _say(yard, State.VERIFYING, only="d2")
    yard.clock.advance(30)
    await _looks(yard)
    yard.clock.advance(300)
    await _looks(yard)
    yard.clock.advance(3600)
    await _looks(yard)


async def permits_and_priorities(yard: Yard) -> None:
    """One device of a site at a time; a heavier rollout takes its devices."""
    await yard.add_devices(["d1", "d2"], labels={"site": "lab"})
    await yard.add_release(name="gateway/1.2.0")
    await yard.run(plan(max_unavailable=[{"label": "site", "count": 1}]))
    await _ready(yard)
    await _say(yard, State.FETCHED)
    await yard.run(plan(release="gateway/1.2.0", emergency=True))
    for device in ("d1", "d2"):
        await yard.ready("r-2", device, BUSY)
    await _looks(yard)
    await _say(yard, State.SUPERSEDED)
    for state in (State.FETCHED, State.SUCCEEDED):
        await _say(yard, state, rollout="r-2")


SCENARIOS: tuple[Scenario, ...] = (all_goes_well, a_canary_halts, tries_and_times, permits_and_priorities)


async def record(scenario: Scenario) -> list[dict[str, Any]]:
    """The decisions of one scenario, as the audit log has them."""
    async with open_yard() as yard:
        await scenario(yard)
        async with yard.db.read() as conn:
            found, after = list[dict[str, Any]](), 0
            while page := await audit.page(conn, after=after, limit=500):
                after = page[-1].id
                found += [entry.figures() for entry in page if entry.kind == "decision"]
    return found


def main() -> None:
    """Write the files that are not there."""
    for scenario in SCENARIOS:
        file = HERE / f"{scenario.__name__}.json"
        if not file.exists():
            lines = (json.dumps(one, separators=(",", ":"), sort_keys=True) for one in asyncio.run(record(scenario)))
            file.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
