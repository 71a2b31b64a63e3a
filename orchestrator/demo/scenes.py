"""The two scenes, and what must be true after each."""

import asyncio
import filecmp
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.demo.fleet import PRODUCT, Fleet
from orchestrator.demo.image import BAD, GOOD
from orchestrator.demo.processes import command
from orchestrator.demo.watch import Watch
from orchestrator.errors import OperationError
from protocol.status_messages import DeviceStatus, RolloutStatus

SCENE_TIMEOUT_S = 150.0
SOAK_S = 2
PAUSE_S = 2.0
ENDED = frozenset({"completed", "halted", "aborted"})

Say = Callable[[str, str], None]
"""(who, what): one line for the person who watches."""


@dataclass(frozen=True, slots=True)
class SceneResult:
    """One scene, in figures."""

    status: RolloutStatus
    published_bytes: int
    delivered_bytes: int
    resumed: frozenset[str]


async def scene_one(fleet: Fleet, watch: Watch, package: Path, say: Say) -> SceneResult:
    """1.1.0 in three stages, with five mishaps.

    Raises:
        OperationError: Something was not as it must be.
    """
    published = await _publish(fleet, package)
    say("operator", f"published {PRODUCT}/{GOOD}: {published:,} B of chunks, read back from the broker")
    await command("flagship-device", "inhibit", "--home", fleet.device(fleet.cast.in_use), "player", "--why", "a film")
    await _start(fleet, "r-1", GOOD)
    say("operator", f"started rollout r-1: {PRODUCT}/{GOOD} to canary, 25 %, all")
    async with asyncio.TaskGroup() as group:
        for mishap in (_low_battery, _in_use, _approval, _cut_off, _killed):
            group.create_task(_named(mishap, fleet, watch, say))
        await watch.until(lambda: _state(watch, "r-1") in ENDED, SCENE_TIMEOUT_S, "the end of rollout r-1")
    await watch.until(lambda: _run(watch, fleet.devices, GOOD), 10, f"{GOOD} in every inventory")
    status = watch.rollouts["r-1"]
    _must(status.state == "completed", f"rollout r-1 completed, found {status.state} {status.reason}")
    _must(status.succeeded == len(fleet.devices), f"{len(fleet.devices)} devices succeeded, found {status.succeeded}")
    checked = [fleet.cast.canaries[0], fleet.cast.cut_off, fleet.cast.killed]
    for name in checked:
        same = await asyncio.to_thread(_same_tree, fleet.images.good, fleet.device(name) / "current")
        _must(same, f"{name} has every byte of {GOOD}")
    say("demo", f"{', '.join(checked)}: every file equals the image")
    return _result(watch, fleet, published)


async def scene_two(fleet: Fleet, watch: Watch, package: Path, say: Say) -> SceneResult:
    """1.2.0 fails its health check: canaries roll back, the rollout halts, nobody else is touched.

    Raises:
        OperationError: Something was not as it must be.
    """
    published = await _publish(fleet, package)
    say("operator", f"published {PRODUCT}/{BAD}: {published:,} B of chunks; the others were there already")
    await _start(fleet, "r-2", BAD)
    say("operator", f"started rollout r-2: {PRODUCT}/{BAD}")
    canaries = len(fleet.cast.canaries)
    await watch.until(lambda: _state(watch, "r-2") in ENDED, SCENE_TIMEOUT_S, "the end of rollout r-2")
    await watch.until(lambda: watch.rollouts["r-2"].rolled_back == canaries, 30, "both canaries rolled back")
    await watch.until(lambda: _run(watch, fleet.devices, GOOD), 10, f"{GOOD} in every inventory")
    await asyncio.sleep(PAUSE_S)  # long enough for a wrong offer to show
    status = watch.rollouts["r-2"]
    others = len(fleet.devices) - canaries
    _must(status.state == "halted", f"rollout r-2 halted, found {status.state}")
    _must(status.untouched == others, f"{others} devices untouched, found {status.untouched}")
    codes = {watch.devices[name].code for name in fleet.cast.canaries}
    _must(codes == {"E_HEALTH"}, f"the canaries failed with E_HEALTH, found {', '.join(sorted(codes)) or 'nothing'}")
    touched = [n for n in fleet.devices if n not in fleet.cast.canaries and watch.devices[n].rollout == "r-2"]
    touched = [n for n in touched if watch.devices[n].state not in ("", "pending")]
    _must(not touched, f"nobody else took part, found {', '.join(touched)}")
    return _result(watch, fleet, published)


async def _named(mishap: Callable[[Fleet, Watch, Say], Awaitable[None]], fleet: Fleet, watch: Watch, say: Say) -> None:
    await mishap(fleet, watch, say)


async def _low_battery(fleet: Fleet, watch: Watch, say: Say) -> None:
    name = fleet.cast.low_battery
    await _until_waits(watch, name, "power")
    await watch.until(lambda: _holds_up_a_stage(watch, "power"), SCENE_TIMEOUT_S, f"the stage of {name}")
    await asyncio.sleep(PAUSE_S)
    _must(watch.devices[name].components.get("app") != GOOD, f"{name} waited for its charge")
    fleet.set_battery(90)
    say(name, "is charged to 90 %")


async def _in_use(fleet: Fleet, watch: Watch, say: Say) -> None:
    name = fleet.cast.in_use
    await _until_waits(watch, name, "in_use")
    await asyncio.sleep(PAUSE_S)
    _must(watch.devices[name].components.get("app") != GOOD, f"{name} waited while in use")
    await command("flagship-device", "inhibit", "--home", fleet.device(name), "player", "--release")
    say(name, "is not in use any more")


async def _approval(fleet: Fleet, watch: Watch, say: Say) -> None:
    name = fleet.cast.approval
    await _until_waits(watch, name, "approval")
    await asyncio.sleep(PAUSE_S)
    _must(watch.devices[name].components.get("app") != GOOD, f"{name} waited for approval")
    await command("flagship-device", "approve", "--home", fleet.device(name), "r-1")
    say(name, "was approved by a person at the device")


async def _cut_off(fleet: Fleet, watch: Watch, say: Say) -> None:
    name = fleet.cast.cut_off
    await _until_mid_transfer(watch, name)
    fleet.relay.cut()
    say(name, f"loses its connection at {watch.devices[name].percent:.0f} % of the transfer")
    await asyncio.sleep(PAUSE_S)
    fleet.relay.mend()
    say(name, "has a connection again")


async def _killed(fleet: Fleet, watch: Watch, say: Say) -> None:
    name = fleet.cast.killed
    await _until_mid_transfer(watch, name)
    _must(fleet.victim is not None, "the agent to be killed runs")
    if fleet.victim:
        await fleet.victim.kill()
        say(name, f"agent killed (SIGKILL) at {watch.devices[name].percent:.0f} % of the transfer")
        await asyncio.sleep(PAUSE_S)
        await fleet.victim.start()
        say(name, "agent started again")


async def _until_waits(watch: Watch, name: str, gate: str) -> None:
    def waits() -> bool:
        device = watch.devices.get(name)
        _must_go_on(watch, f"{name} waits for {gate}")
        return device is not None and any(reason.startswith(gate) for reason in device.reasons)

    await watch.until(waits, SCENE_TIMEOUT_S, f"{name} waiting for {gate}")


async def _until_mid_transfer(watch: Watch, name: str) -> None:
    def mid() -> bool:
        device = watch.devices.get(name)
        _must_go_on(watch, f"{name} is in mid-transfer")
        return device is not None and device.rollout == "r-1" and 0 < device.percent < 97

    await watch.until(mid, SCENE_TIMEOUT_S, f"{name} in mid-transfer")


async def _publish(fleet: Fleet, package: Path) -> int:
    said = await command("flagship", "release", "publish", "--home", fleet.home, package, "-o", "json")
    return int(json.loads(said)["published_chunk_bytes"])


async def _start(fleet: Fleet, rollout: str, version: str) -> None:
    await command(
        "flagship", "rollout", "create", rollout, "--home", fleet.home, "--release", f"{PRODUCT}/{version}",
        "--selector", f"product={PRODUCT}", "--stage", "canary=group:canary", "--stage", "quarter=25%",
        "--stage", "all=100%", "--soak", str(SOAK_S), "--halt-count", "1",
    )  # fmt: skip
    await command("flagship", "rollout", "start", "--home", fleet.home, rollout)


def _result(watch: Watch, fleet: Fleet, published: int) -> SceneResult:
    devices: list[DeviceStatus] = [watch.devices[name] for name in fleet.devices if name in watch.devices]
    status = max(watch.rollouts.values(), key=lambda rollout: rollout.id)
    mine = [device for device in devices if device.rollout == status.id]
    return SceneResult(
        status,
        published,
        sum(device.bytes_fetched for device in mine),
        frozenset(device.id for device in mine if device.resumed),
    )


def _state(watch: Watch, rollout: str) -> str:
    found = watch.rollouts.get(rollout)
    return found.state if found else ""


def _holds_up_a_stage(watch: Watch, gate: str) -> bool:
    """Whether a device of an open stage waits for a gate; which stage a device is in is chance."""
    _must_go_on(watch, f"a stage is held up by {gate}")
    found = watch.rollouts.get("r-1")
    stages = [stage for stage in found.stages if stage.state != "pending"] if found else []
    return any(reason.startswith(gate) for stage in stages for reason in stage.reasons)


def _run(watch: Watch, devices: list[str], version: str) -> bool:
    return all(name in watch.devices and watch.devices[name].components.get("app") == version for name in devices)


def _must_go_on(watch: Watch, what: str) -> None:
    status = watch.rollouts.get("r-1")
    if status is not None and status.state in ENDED:
        raise OperationError(f"demo: rollout r-1 {status.state} before {what}: {status.reason or 'all are done'}")


def _same_tree(left: Path, right: Path) -> bool:
    comparison = filecmp.dircmp(left, right, ignore=[], hide=[])
    return _same(comparison)


def _same(comparison: "filecmp.dircmp[str]") -> bool:
    if comparison.left_only or comparison.right_only or comparison.funny_files:
        return False
    with suppress(OSError):
        _, different, unread = filecmp.cmpfiles(
            comparison.left, comparison.right, comparison.common_files, shallow=False
        )
        return not different and not unread and all(_same(sub) for sub in comparison.subdirs.values())
    return False


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise OperationError(f"demo: expected that {what}")
