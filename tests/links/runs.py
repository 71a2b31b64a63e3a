"""One fleet, and a device with a real agent behind each bad link, all at once."""

import asyncio
import contextlib
import copy
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import structlog.testing

from device_client.config import DeviceHome
from device_client.identity_files import IdentityFiles
from protocol.states import State
from tests.integration.small_fleet import SmallFleet, installed, make_package, make_tree, small_fleet
from tests.links.link import Link, link
from tests.links.mqtt_faults import MqttFaults, mqtt_faults
from tests.links.rows import MIDDLE_BYTES, Row
from tests.links.verified import verified_chunks

IMAGE_BYTES = 1_500_000
DEADLINE_S = 60.0
ENDLESS_S = 6.0
"""How long those that never end are watched."""
THREADS_END_S = 0.5
"""A killed process writes nothing more; the threads of a cancelled task do, for a moment."""


@dataclass
class Run:
    """What came of one row.

    Attributes:
        version: That the device runs at the end, and whether it is byte for byte what was released.
        said: Codes of refusals, and events of the agent's log.
        verified: Chunks that were verified and kept, and ``twice`` those of them that were it more than once.
    """

    row: Row
    version: str = ""
    is_whole: bool = False
    state: State | None = None
    said: set[str] = field(default_factory=set)
    verified: int = 0
    twice: int = 0
    fates: dict[str, int] = field(default_factory=dict)
    error: str = ""


async def run_rows(rows: Sequence[Row]) -> dict[str, Run]:
    """Run all rows at once against one fleet."""
    runs = {row.name: Run(row) for row in rows}
    names = {row.name: f"d{number:03}" for number, row in enumerate(rows)}
    with _captured() as log, verified_chunks() as verified:
        async with small_fleet() as fleet, contextlib.AsyncExitStack() as stack:
            factory = make_tree(fleet.place, "1.0.0", 1_000)
            tree = make_tree(fleet.place, "1.1.0", IMAGE_BYTES)
            await fleet.publish(await asyncio.to_thread(make_package, fleet.home, tree, "1.1.0"))
            for row in rows:
                await fleet.enrol([names[row.name]], factory, **copy.deepcopy(row.sections))
            ways = {row.name: await stack.enter_async_context(_way(fleet, names[row.name], row)) for row in rows}
            fleet.start_agents(list(names.values()))
            await fleet.roll_out("r-1", "1.1.0")
            await asyncio.gather(*(_run(fleet, names[row.name], ways[row.name], runs[row.name]) for row in rows))
            for name, run in runs.items():
                agent, home = fleet.agents[names[name]], fleet.devices[names[name]]
                run.version, run.is_whole = installed(home), _same(tree, home)
                run.state = agent.runner.update.state if agent.runner.update else None
                run.said |= set(agent._refusals.counts)
                times = [count for (device, _), count in verified.items() if device == names[name]]
                run.verified, run.twice = len(times), sum(count > 1 for count in times)
                run.fates = dict(ways[name][1].fates)
    for name, run in runs.items():
        run.said |= {str(entry["event"]) for entry in log if entry.get("device_id") == names[name]}
    return runs


@contextlib.contextmanager
def _captured() -> Iterator[list[Any]]:
    """The agents' log, with the device that each line is of."""
    capture, before = structlog.testing.LogCapture(), structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture], cache_logger_on_first_use=False)
    try:
        yield capture.entries
    finally:
        structlog.configure(**before)


@contextlib.asynccontextmanager
async def _way(fleet: SmallFleet, name: str, row: Row) -> AsyncIterator[tuple[Link, MqttFaults]]:
    """device -> link -> faulty hand -> broker; and, where the row has another broker, a straight way to it."""
    home, port = fleet.devices[name], fleet.settings.broker.device_port
    async with (
        mqtt_faults(fleet.home, home, port, copy.deepcopy(row.faults)) as hand,
        link(hand.port, row.weather) as made,
    ):
        brokers = [{"host": "127.0.0.1", "port": made.port}]
        if "next broker" in row.then:
            brokers.append({"host": "127.0.0.1", "port": port})
        set_brokers(home, brokers)
        yield made, hand


def set_brokers(home: DeviceHome, brokers: list[dict[str, Any]]) -> None:
    """Let a device know these addresses and no others."""
    file = IdentityFiles(home).enrolment
    file.write_text(json.dumps({**json.loads(file.read_text()), "brokers": brokers}))


async def _run(fleet: SmallFleet, name: str, way: tuple[Link, MqttFaults], run: Run) -> None:
    made, _ = way
    try:
        async with asyncio.timeout(DEADLINE_S):
            if run.row.then:
                await _until(lambda: made.counted.down_bytes >= MIDDLE_BYTES or _is_there(fleet, name))
                await _happen(fleet, name, made, run)
            if run.row.ends:
                await _until(lambda: _is_there(fleet, name))
            else:
                await asyncio.sleep(ENDLESS_S)
    except TimeoutError:
        run.error = f"not there after {DEADLINE_S:g} s"


async def _happen(fleet: SmallFleet, name: str, made: Link, run: Run) -> None:
    then = dict(run.row.then)
    if then.pop("restart", False):
        run.said |= set(fleet.agents[name]._refusals.counts)
        fleet.tasks[name].cancel()
        await asyncio.gather(fleet.tasks[name], return_exceptions=True)
        await asyncio.sleep(THREADS_END_S)
        fleet.start_agents([name])
    if then.pop("next broker", False):
        made.change(refuse=True)
        made.reset()
    if then.pop("reset", False):
        made.reset()
    if then.pop("strand", False):
        made.strand()
    if then:
        made.change(**then)
        if run.row.after_s:
            await asyncio.sleep(run.row.after_s)
            made.change(**dict.fromkeys(then, False))


def _is_there(fleet: SmallFleet, name: str) -> bool:
    """Succeeded, or heard and cleared already."""
    update = fleet.agents[name].runner.update
    is_over = update is None or update.state is State.SUCCEEDED
    return is_over and installed(fleet.devices[name]) == "1.1.0"


def _same(tree: Path, home: DeviceHome) -> bool:
    return all((home.current / path.name).read_bytes() == path.read_bytes() for path in tree.iterdir())


async def _until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.05)
