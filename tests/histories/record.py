"""Records what the engine decided in some lives of a rollout: ``python -m tests.histories.record [NAME ...]``.

A history that is there is not written again: what an older engine decided is what later ones are held against.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from orchestrator.config import Settings, TimingSettings
from orchestrator.model.plan import Growth, HaltRule, Members, Retry, StageSpec, Timeouts, UnavailableLimit
from orchestrator.rollouts.facts import VERSION, Decisions, Facts
from orchestrator.rollouts.replaying import record
from protocol.errors import ErrorCode
from protocol.states import Phase, State
from tests.orchestrator.rollouts.invariants import Invariants
from tests.orchestrator.rollouts.test_knobs import FOUR, REST, begun, canary, ends, passes, settle
from tests.orchestrator.rollouts.watching import WatchedController
from tests.orchestrator.rollouts.yard import LEASE_S, NOW, Yard, open_yard, plan

HERE = Path(__file__).parent
_EMPTY: tuple[object, ...] = (None, False, "", 0, [], {})


async def all_goes_well(yard: Yard) -> None:
    """A canary, and then the rest, at a pace that grows."""
    growth = Growth(factor=2, every=2, max_per_minute=8)
    rollout = await begun(yard, FOUR, canary("d1", "d2"), REST, pace_per_minute=4, pace_growth=growth)
    for _ in range(3):
        await passes(yard, 20)
    await ends(yard, rollout, State.SUCCEEDED, "d1", "d2")
    await passes(yard, 20)
    await passes(yard, 20)
    await ends(yard, rollout, State.SUCCEEDED, "d3", "d4")


async def the_canary_halts(yard: Yard) -> None:
    """Its rule breaks; a person resumes, and the next failure halts again."""
    rollout = await begun(yard, FOUR, canary("d1", "d2"), REST, halt_count=1, success_ratio=0.5)
    await ends(yard, rollout, State.ROLLED_BACK, "d1", code=ErrorCode.HEALTH)
    await passes(yard, LEASE_S / 2)
    await yard.order(rollout, "resume")
    await settle(yard)
    await ends(yard, rollout, State.SUCCEEDED, "d2")
    await ends(yard, rollout, State.FAILED, "d3")


async def a_stage_soaks(yard: Yard) -> None:
    """Soaks, falls below its rule, soaks anew, and waits for a person."""
    stage = canary("d1", "d2", soak_s=90, approval=True)
    rollout = await begun(yard, FOUR, stage, REST, success_ratio=0.6, halt_ratio=1.0)
    await ends(yard, rollout, State.SUCCEEDED, "d1")
    await passes(yard, 50)
    await ends(yard, rollout, State.FAILED, "d2")
    await passes(yard, 50)
    await yard.order(rollout, "retry")
    await settle(yard)
    await ends(yard, rollout, State.SUCCEEDED, "d2")
    await passes(yard, 45)
    await passes(yard, 45)
    await yard.order(rollout, "promote")
    await settle(yard)


async def devices_try_again(yard: Yard) -> None:
    """Once by themselves, after a while; the second failure is one."""
    rollout = await begun(yard, ["d1", "d2"], halt_count=2, retries={"download": Retry(times=1, backoff_s=40)})
    await ends(yard, rollout, State.FAILED, "d1", code=ErrorCode.CHUNK)
    await passes(yard, 40)
    await ends(yard, rollout, State.FAILED, "d1", code=ErrorCode.CHUNK)
    await ends(yard, rollout, State.FAILED, "d2", code=ErrorCode.HEALTH)


async def devices_take_too_long(yard: Yard) -> None:
    """Before installing they are given up; later they are judged until they say what became of them."""
    limits = Timeouts(queued_s=40, downloading_s=60, installing_s=80)
    rules = (HaltRule(classes=frozenset({"timed_out"}), count=3, scope="rollout"),)
    rollout = await begun(yard, FOUR, halt_ratio=1.0, timeouts=limits, halt_rules=rules)
    await yard.report(rollout, "d2", State.DOWNLOADING)
    await yard.report(rollout, "d3", State.INSTALLING)
    await ends(yard, rollout, State.SUCCEEDED, "d4")
    for _ in range(3):
        await passes(yard, 30)
    await ends(yard, rollout, State.SUCCEEDED, "d3")


async def a_heavier_rollout_comes(yard: Yard) -> None:
    """It takes the devices that have not begun, and waits for the one that has."""
    first = await begun(yard, ["d1", "d2"], weight=100)
    await yard.report(first, "d2", State.INSTALLING)
    await yard.add_release(name="gateway/1.2.0", component="modem")
    second = await begun(yard, ["d1", "d2"], release="gateway/1.2.0", weight=900)
    await ends(yard, second, State.SUCCEEDED, "d1")
    await ends(yard, first, State.SUCCEEDED, "d2")
    await passes(yard, 10)


async def one_permit_for_all(yard: Yard) -> None:
    """Devices ask one after the other, a grant runs out unused, and the next one has it."""
    await yard.add_devices(["d1", "d2"], labels={"site": "lab"})
    limit = (UnavailableLimit(label="site", count=1),)
    rollout = await begun(yard, ["d1", "d2"], max_unavailable=limit)
    for device in ("d1", "d2"):
        await yard.report(rollout, device, State.FETCHED)
        await settle(yard)
    await passes(yard, 45)
    await passes(yard, 45)
    await yard.ready(rollout, "d2", phase=Phase.INSTALL, attempt=1)
    await settle(yard)
    await yard.report(rollout, "d2", State.INSTALLING)
    await ends(yard, rollout, State.SUCCEEDED, "d2")
    await yard.ready(rollout, "d1", phase=Phase.INSTALL, attempt=1)
    await settle(yard)


async def its_end_comes(yard: Yard) -> None:
    """Of three rollouts over a device each: one stops, one halts, one is aborted."""
    for device, at_end in (("d1", "stop"), ("d2", "halt"), ("d3", "abort")):
        await yard.add_devices([device])
        members = Members(devices=(device,))
        await yard.run(plan(members=members, end_at=NOW + timedelta(seconds=60), at_end=at_end))
    await settle(yard)
    await yard.ready("r-1", "d1")
    await settle(yard)
    await passes(yard, 60)
    await ends(yard, "r-1", State.SUCCEEDED, "d1")


async def members_come_later(yard: Yard) -> None:
    """A dynamic rollout takes them in, and completes at its end."""
    members = Members(dynamic=True)
    rollout = await begun(yard, ["d1"], members=members, end_at=NOW + timedelta(seconds=90))
    await ends(yard, rollout, State.SUCCEEDED, "d1")
    await yard.add_devices(["d2"])
    await settle(yard)
    await yard.ready(rollout, "d2")
    await settle(yard)
    await ends(yard, rollout, State.SUCCEEDED, "d2")
    await passes(yard, 90)


async def the_fleet_is_halted(yard: Yard) -> None:
    """A pause, a scheduled start, an abort with a device under way."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run(plan(StageSpec(name="all", percent=100)))
    await settle(yard)
    await yard.ready(rollout, "d1")
    await settle(yard)
    await yard.deliver(rollout, "d1")
    await yard.order(rollout, "pause")
    await yard.ready(rollout, "d2")
    await yard.report(rollout, "d1", State.FETCHED)
    await settle(yard)
    await yard.order(rollout, "abort")
    await settle(yard)
    await ends(yard, rollout, State.CANCELLED, "d1")


SCENARIOS: dict[str, Callable[[Yard], Awaitable[None]]] = {
    "happy-path": all_goes_well,
    "canary-halt": the_canary_halts,
    "soak": a_stage_soaks,
    "retries": devices_try_again,
    "timeouts": devices_take_too_long,
    "preemption": a_heavier_rollout_comes,
    "permits": one_permit_for_all,
    "end-behaviours": its_end_comes,
    "dynamic": members_come_later,
    "pause-and-abort": the_fleet_is_halted,
}


async def recorded(scenario: Callable[[Yard], Awaitable[None]]) -> dict[str, Any]:
    """A history: plans by rollout, and every decision with the facts that it was made on."""
    plans: dict[str, Any] = {}
    steps: list[dict[str, Any]] = []

    async with open_yard() as yard:

        def told(facts: Facts, decisions: Decisions) -> None:
            step = record(facts, decisions, yard.clock.now(), timedelta(seconds=LEASE_S))
            del step["version"]
            for part in (step["facts"], step["decisions"]):
                part["rollout"] = dict(part["rollout"])
                plans[facts.rollout.id] = part["rollout"].pop("spec")
            step["decisions"] = {name: value for name, value in step["decisions"].items() if value not in _EMPTY}
            steps.append(step)

        timing = Settings(timing=TimingSettings(lease_s=LEASE_S))
        yard.controller = WatchedController(Invariants(), yard.db, yard.clock, timing, lambda: None, told=told)
        await scenario(yard)
    about = (scenario.__doc__ or "").strip()
    return {"about": about, "version": VERSION, "plans": plans, "steps": steps}


def main(names: list[str]) -> None:
    """Write those that are named and not there; all of them where none is named."""
    for name in names or SCENARIOS:
        path = HERE / f"{name}.json"
        if path.exists():
            sys.stderr.write(f"{path.name}: is there already; give the new one another name\n")
            continue
        history = asyncio.run(recorded(SCENARIOS[name]))
        steps = history.pop("steps")
        lines = ",\n".join(json.dumps(step, sort_keys=True) for step in steps)
        head = json.dumps(history, sort_keys=True, indent=1).removesuffix("\n}")
        path.write_text(f'{head},\n "steps": [\n{lines}\n]}}\n')
        sys.stderr.write(f"{path.name}: {len(steps)} decisions\n")


if __name__ == "__main__":
    main(sys.argv[1:])
