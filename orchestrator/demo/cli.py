"""``flagship demo``: the main job, on this machine, in two minutes."""

import asyncio
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.config import Home
from orchestrator.demo.fleet import DEVICE_TIMES, HARDWARE, ORCHESTRATOR_TIMES, PRODUCT, Cast, Fleet
from orchestrator.demo.image import BAD, GOOD, make_images
from orchestrator.demo.processes import command
from orchestrator.demo.relay import Relay
from orchestrator.demo.scenes import SOAK_S, Say, SceneResult, scene_one, scene_two
from orchestrator.demo.watch import Watch, same
from orchestrator.errors import OperationError, UsageError
from protocol.status_messages import DeviceStatus, RolloutStatus

MIN_DEVICES, MAX_DEVICES = 9, 100


def demo(
    devices: Annotated[int, typer.Option(help="how many devices; 2 canaries and 5 with a mishap among them")] = 12,
    image: Annotated[Path | None, typer.Option(help="directory to ship; default: Python's standard library")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="leave homes and logs in place")] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="text, or json: the last line is one object")] = "text",
) -> None:
    """Show a staged rollout that survives five mishaps, and a bad release that stops by itself."""
    if not MIN_DEVICES <= devices <= MAX_DEVICES:
        raise UsageError(f"--devices {devices}: expected {MIN_DEVICES} to {MAX_DEVICES}")
    if output not in ("text", "json"):
        raise UsageError(f"--output {output[:20]!r}: expected text or json")
    place = Path(tempfile.mkdtemp(prefix="flagship-demo-"))
    try:
        summary = asyncio.run(_play(place, devices, image))
    except OperationError:
        print(f"the logs are in {place}", flush=True)
        keep = True
        raise
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)
    if keep:
        print(f"homes and logs are in {place}")
    if output == "json":
        print(json.dumps(summary))
    else:
        print_summary(summary)


class _Narrator:
    """One line per thing that happens, with the seconds since the first rollout."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def say(self, who: str, what: str) -> None:
        print(f"[{time.monotonic() - self.began:6.1f} s] {who:<9} {what}", flush=True)

    def device(self, before: DeviceStatus | None, after: DeviceStatus) -> None:
        if not after.rollout or same(before, after, "rollout", "state", "reasons", "code"):
            return
        if after.state == "pending" and not after.reasons:
            return
        why = "; ".join(after.reasons) or f"{after.code} {after.detail}".strip()
        self.say(after.id, f"{after.state}: {why}" if why else after.state)

    def rollout(self, before: RolloutStatus | None, after: RolloutStatus) -> None:
        if before is None or before.state != after.state:
            self.say(after.id, f"{after.state} {after.reason}".rstrip())
        known = {stage.name: stage.state for stage in before.stages} if before else {}
        for stage in after.stages:
            if stage.state != known.get(stage.name, "pending"):
                self.say(after.id, f"stage {stage.name}: {stage.state}, {stage.members} devices")


async def _play(place: Path, count: int, source: Path | None) -> dict[str, object]:
    narrator = _Narrator()
    say = narrator.say
    say("demo", "setting up: images, a fleet's home, serve with mosquitto, devices with keys of their own")
    images = await asyncio.to_thread(make_images, source, place / "images")
    names = [f"gw-{number:02}" for number in range(1, count + 1)]
    fleet = Fleet(place, images, names, relay=Relay("127.0.0.1", 0), cast=Cast.of(names))
    try:
        await fleet.start_orchestrator()
        settings = Home(fleet.home).load()
        fleet.relay = Relay(settings.broker.host, settings.broker.device_port)
        packages = [await _pack(fleet, version, path) for version, path in ((GOOD, images.good), (BAD, images.bad))]
        await fleet.enrol(settings.broker.device_port)
        await command("flagship", "group", "create", "--home", fleet.home, "canary", *fleet.cast.canaries)
        await fleet.start_agents(packages[0].stat().st_size)
        watch = Watch(Home(fleet.home), settings, names)
        watch.on_device, watch.on_rollout = narrator.device, narrator.rollout
        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(watch.run()), group.create_task(_check_often(fleet))]
            await watch.until(lambda: all(_is_online(watch, name) for name in names), 60, "all devices online")
            _tell_the_cast(fleet, say)
            narrator.began = time.monotonic()
            one = await scene_one(fleet, watch, packages[0], say)
            two = await scene_two(fleet, watch, packages[1], say)
            seconds = time.monotonic() - narrator.began
            for task in watching:
                task.cancel()
    except BaseExceptionGroup as errors:  # not except*: Python 3.11.2 wraps what is raised in it
        first = _first(errors)
        if isinstance(first, OperationError):
            raise first from None
        raise
    finally:
        await fleet.stop()
    return _summary(fleet, [one, two], seconds)


async def _pack(fleet: Fleet, version: str, source: Path) -> Path:
    package = fleet.place / f"{version}.flagship"
    await command(
        "flagship", "release", "create", "--home", fleet.home, source, "--product", PRODUCT, "--version", version,
        "--hardware", HARDWARE, "--component", "app", "-o", package,
    )  # fmt: skip
    return package


def _tell_the_cast(fleet: Fleet, say: Say) -> None:
    cast, times = fleet.cast, {**DEVICE_TIMES, "soak_s": SOAK_S}
    say("demo", f"{len(fleet.devices)} devices run 1.0.0; {', '.join(cast.canaries)} are canaries")
    say("demo", f"{cast.low_battery} has a low battery, {cast.in_use} is in use, {cast.approval} waits for a person")
    say("demo", f"{cast.cut_off} will lose its connection and {cast.killed} its agent, both in mid-transfer")
    shortened = ", ".join(f"{key} {value}" for key, value in times.items())
    say("demo", f"times shortened for the demo: {shortened}, tick_s {ORCHESTRATOR_TIMES['FLAGSHIP_TIMING__TICK_S']}")


async def _check_often(fleet: Fleet) -> None:
    while True:
        await asyncio.sleep(1)
        fleet.check()


def _is_online(watch: Watch, name: str) -> bool:
    return name in watch.devices and watch.devices[name].online


def print_summary(summary: dict[str, Any]) -> None:
    """The end, for a person."""
    for rollout in summary["rollouts"]:
        print(
            f"{rollout['release']}: {rollout['state']}; {rollout['succeeded']} succeeded, "
            f"{rollout['rolled_back']} rolled back, {rollout['untouched']} untouched"
        )
    print(
        f"image {summary['image_bytes']:,} B; published once {summary['published_chunk_bytes']:,} B of chunks; "
        f"delivered {summary['delivered_chunk_bytes']:,} B to {summary['devices']} devices; "
        f"{summary['resumed_devices']} resumed a transfer; {summary['seconds']} s"
    )


def _summary(fleet: Fleet, results: list[SceneResult], seconds: float) -> dict[str, object]:
    resumed = frozenset().union(*(result.resumed for result in results))
    expected = {fleet.cast.cut_off, fleet.cast.killed}
    if not expected <= resumed:
        raise OperationError(f"demo: expected that {', '.join(sorted(expected))} resumed, found {', '.join(resumed)}")
    return {
        "devices": len(fleet.devices),
        "rollouts": [
            {
                "release": result.status.release,
                "state": result.status.state,
                "succeeded": result.status.succeeded,
                "rolled_back": result.status.rolled_back,
                "untouched": result.status.untouched,
            }
            for result in results
        ],
        "image_bytes": fleet.images.length,
        "published_chunk_bytes": sum(result.published_bytes for result in results),
        "delivered_chunk_bytes": sum(result.delivered_bytes for result in results),
        "resumed_devices": len(resumed),
        "seconds": round(seconds, 1),
    }


def _first(errors: BaseException) -> BaseException:
    """The first sentence for a person in a group; where there is none, the first error."""
    if not isinstance(errors, BaseExceptionGroup):
        return errors
    found = [_first(error) for error in errors.exceptions]
    return next((error for error in found if isinstance(error, OperationError)), found[0])
