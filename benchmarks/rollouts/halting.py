"""How quick is a halt?

    python -m benchmarks.rollouts.halting [--devices 1000] [--rounds 5] [--json FILE]

A real ``flagship serve`` with its mosquitto over TLS, and light devices in this process, each with its own connection,
all of them in mid-download. "latch": from the order over HTTP to the halt in the database. "answer": to the answer,
which comes when sends in flight have ended. "announced": until the signed hold has reached 99 % of them. "heard":
until 99 % have reported that they wait, signed, and that stands in the database. For one rollout, and for the fleet.
"""

import argparse
import asyncio
import json
import math
import secrets
import sqlite3
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._devices import Driver, Drivers
from benchmarks._machine import machine
from benchmarks.orchestrator_cpu import PRODUCT, running_fleet, start_drivers
from device_client.agent.journal import Update
from orchestrator.cli.client import ApiClient
from orchestrator.config import Home
from protocol.directives import ANNOUNCEMENT_TYPE, Action, Announcement, Offer
from protocol.envelopes import decode, parse
from protocol.mqtt.connection import Message
from protocol.reports import Reason
from protocol.states import Phase, State
from protocol.topics import RULES, Kind

GOALS_MS = {"latch": 50, "heard": 2000}
SHARE = 0.99
HOLD = Reason(gate="order", code="hold", detail="the rollout is on hold")
LIMIT_S = 60.0


@dataclass
class Holder(Driver):
    """A device that downloads without end, and waits when it is told to hold."""

    held_at: dict[int, float] = field(default_factory=dict)  # order of the announcement -> when it came
    on_hold: bool = False

    async def _take(self, message: Message, changed: asyncio.Event) -> None:
        if self.topics.parse(message.topic).kind is not Kind.ANNOUNCE:
            await super()._take(message, changed)
            return
        envelope = parse(message.payload, RULES[Kind.ANNOUNCE].max_bytes, ANNOUNCEMENT_TYPE)
        announcement = decode(envelope.payload, Announcement)
        holds = announcement.action is Action.HOLD
        if announcement.rollout not in self._updates:
            await self._answer(announcement)
        elif holds != self.on_hold:
            self.on_hold = holds
            reasons = [HOLD] if holds else []
            if holds:
                self.held_at[announcement.seq] = time.monotonic()
            await self.reporter.readiness(
                announcement.rollout,
                1,
                secrets.token_urlsafe(12),
                Phase.DOWNLOAD,
                reasons,
                ready=not holds,
                stale=False,
            )

    async def _follow(self, offer: Offer) -> None:
        if offer.rollout not in self._updates:
            self._updates[offer.rollout] = Update(offer=offer, state=State.DOWNLOADING, from_version=self.version)
            await self._say(offer, State.DOWNLOADING)


def main() -> None:
    """Measure."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--devices", type=int, default=1000)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--json", type=Path)
    given = words.parse_args()
    found = asyncio.run(_measure(given.devices, given.rounds))
    print(json.dumps(found, indent=1))
    if given.json:
        result = {"machine": machine(), "goals_ms": GOALS_MS, "devices": given.devices, **found}
        given.json.write_text(json.dumps(result, indent=1) + "\n")


async def _measure(devices: int, rounds: int) -> dict[str, dict[str, float]]:
    async with running_fleet() as fleet:
        version, package, _ = await asyncio.to_thread(fleet.create, 200)
        await fleet.publish(package)
        drivers = await start_drivers(fleet, devices, kind=Holder)
        try:
            client = ApiClient(fleet.home)
            spec = {"release": f"{PRODUCT}/{version}", "stages": [{"name": "all", "percent": 100}]}
            await asyncio.to_thread(client.post, "/rollouts", {"id": "r-1", "spec": spec})
            await asyncio.to_thread(client.post, "/rollouts/r-1/start")
            database = Home(fleet.home).database
            await _until(lambda: _count(database, "state = 'downloading'") >= devices)
            await asyncio.sleep(2)
            return {
                "rollout": await _rounds(
                    client, drivers, database, rounds, "/rollouts/r-1/halt", "/rollouts/r-1/resume"
                ),
                "fleet": await _rounds(client, drivers, database, rounds, "/fleet/halt", "/fleet/lift"),
            }
        finally:
            await drivers.stop()


async def _rounds(
    client: ApiClient, drivers: Drivers, database: Path, rounds: int, halt: str, go_on: str
) -> dict[str, float]:
    times: dict[str, list[float]] = {"latch_ms": [], "answer_ms": [], "announced_ms": [], "heard_ms": []}
    enough = math.ceil(SHARE * len(drivers.devices))
    for _ in range(rounds):
        for device in drivers.devices:
            device.held_at.clear()  # type: ignore[attr-defined]
        began = time.monotonic()
        latch = asyncio.create_task(asyncio.to_thread(_until_latched, database, halt, began))
        await asyncio.to_thread(client.post, halt, {"reason": "measured"})
        times["answer_ms"].append((time.monotonic() - began) * 1000)
        times["latch_ms"].append(await latch)
        await _until(lambda: _count(database, "reasons LIKE '%hold%'") >= enough)
        times["heard_ms"].append((time.monotonic() - began) * 1000)
        await _until(lambda: len(_held(drivers)) >= enough)
        times["announced_ms"].append((sorted(_held(drivers))[enough - 1] - began) * 1000)
        await asyncio.to_thread(client.post, go_on, {"reason": "measured"})
        await _until(lambda: _count(database, "reasons LIKE '%hold%'") == 0)
        await asyncio.sleep(1)
    return {name: round(statistics.median(values), 1) for name, values in times.items()}


def _held(drivers: Drivers) -> list[float]:
    return [min(device.held_at.values()) for device in drivers.devices if device.held_at]  # type: ignore[attr-defined]


def _until_latched(database: Path, halt: str, began: float) -> float:
    """Looks at the file itself, in a thread of its own."""
    question = (
        "SELECT count(*) FROM settings WHERE key = 'fleet_latch'"
        if halt.startswith("/fleet")
        else "SELECT count(*) FROM rollouts WHERE state = 'halted'"
    )
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
        while time.monotonic() - began < LIMIT_S:
            if db.execute(question).fetchone()[0]:
                return (time.monotonic() - began) * 1000
            time.sleep(0.001)
    raise TimeoutError("the latch was not seen")


def _count(database: Path, where: str) -> int:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
        return int(db.execute(f"SELECT count(*) FROM assignments WHERE {where}").fetchone()[0])


async def _until(holds: Any) -> None:  # noqa: ANN401 - a question
    async with asyncio.timeout(LIMIT_S):
        while not holds():  # noqa: ASYNC110 - of a file and of other processes
            await asyncio.sleep(0.01)


if __name__ == "__main__":
    main()
