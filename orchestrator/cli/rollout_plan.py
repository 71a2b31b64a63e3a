"""``flagship rollout plan``: what a plan would do, before anything is done."""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import typer

from orchestrator.cli.client import PLAN_TIMEOUT_S, ApiClient
from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, cell, console, show_json, table
from orchestrator.cli.plan_words import takes_plan
from orchestrator.model.plan import RolloutSpec

if TYPE_CHECKING:
    from rich.table import Table

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def add_to(app: typer.Typer) -> None:
    """Make this command part of ``flagship rollout``."""
    app.command()(plan)


@takes_plan
def plan(spec: RolloutSpec, output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """Try a plan out: members by stage, who takes no part and why, bytes, time, warnings. Nothing is stored."""
    body = {"spec": spec.model_dump(mode="json")}
    found = ApiClient(home).post("/rollouts/plan", body, timeout=PLAN_TIMEOUT_S)
    if output is Format.JSON:
        show_json(found)
        return
    made = console()
    for part in _parts(found):
        made.print(part, markup=False)


def _parts(found: dict[str, Any]) -> Iterator["str | Table"]:
    yield f"{found['release']}: {found['members']} members of {found['examined']} devices"
    yield _stages(found)
    if found["excluded"]:
        yield _excluded(found["excluded"])
    yield from _readiness(found)
    yield _sites(found["bytes_by_site"])
    yield _duration(found["duration"])
    yield from _past(found["past"])
    for text in found["warnings"]:
        yield f"warning: {cell(text)}"


def _stages(found: dict[str, Any]) -> "Table":
    rows = [
        [stage["name"], str(stage["members"]), time_words(timing["offering_s"]), time_words(timing["soak_s"])]
        for stage, timing in zip(found["stages"], found["duration"]["stages"], strict=True)
    ]
    return table(["stage", "members", "offers take", "soak"], rows)


def _excluded(excluded: list[dict[str, Any]]) -> "Table":
    rows = [
        [str(left["devices"]), left["sentence"], "\n".join(f"{d} {cell(why)}" for d, why in left["examples"].items())]
        for left in excluded
    ]
    return table(["devices", "take no part", "for example"], rows)


def _readiness(found: dict[str, Any]) -> Iterator["str | Table"]:
    now = found["readiness"]
    yield f"connected: {now['online']} of {found['members']}; silent: {now['silent']}"
    if now["waiting"]:
        yield table(["members", "said last that they wait for"], [[str(n), why] for why, n in now["waiting"].items()])


def _sites(found: dict[str, Any]) -> "Table":
    rows = [[site["site"] or "-", str(site["members"]), byte_words(site["size_bytes"])] for site in found["sites"]]
    if found["other_sites"]:
        rows.append([f"{found['other_sites']} more", "", byte_words(found["other_bytes"])])
    rows.append(["all", "", byte_words(found["total_bytes"])])
    return table(["site", "members", f"image bytes ({byte_words(found['image_bytes'])} each)"], rows)


def _duration(found: dict[str, Any]) -> str:
    one = found["update_s"]
    history = "no earlier rollout to go by" if one is None else f"one device: {time_words(one)}, by earlier rollouts"
    if found["total_s"] is None:
        return f"takes: unknown ({history}, no pace)"
    budget = f", {time_words(found['site_s'])} for the bytes of the largest site" if found["site_s"] else ""
    return f"takes: {time_words(found['total_s'])} at best ({history}{budget})"


def _past(past: list[dict[str, Any]]) -> Iterator["str | Table"]:
    halted = [one for one in past if one["would_halt"]]
    if past:
        yield f"under these rules {len(halted)} of the last {len(past)} rollouts of this product would have halted"
    if halted:
        rows = [[one["rollout"], one["release"], "\n".join(map(cell, one["would_halt"]))] for one in halted]
        yield table(["rollout", "release", "because"], rows)


def time_words(seconds: float) -> str:
    """``2:30:00``; "-" for no time."""
    return str(timedelta(seconds=round(seconds))) if seconds else "-"


def byte_words(size: float) -> str:
    """``1.5 GB``."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {_UNITS[unit]}"
