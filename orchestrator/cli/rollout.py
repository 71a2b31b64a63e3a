"""``flagship rollout``: create, list, show, status, watch; the verbs and ``offline`` stand in modules of their own."""

import asyncio
from typing import Annotated, Any

import typer

from orchestrator.cli import rollout_offline, rollout_verbs
from orchestrator.cli.client import ApiClient
from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, show_done, show_fields, show_rows
from orchestrator.cli.rollout_verbs import RolloutArgument
from orchestrator.cli.rollout_view import follow_rollout, read_rollout, show_rollout
from orchestrator.cli.words import (
    read_duration,
    read_id,
    read_instant,
    read_ratio,
    read_release,
    read_stage,
    usage,
)
from orchestrator.config import Home
from orchestrator.errors import UsageError
from orchestrator.model.plan import Members, RolloutSpec, StageSpec
from protocol.manifest import Policy

app = typer.Typer(help="Bring a release to devices, stage by stage.", no_args_is_help=True)
rollout_verbs.add_to(app)
rollout_offline.add_to(app)

_COLUMNS = ("id", "release", "state", "reason", "created_at", "started_at", "ended_at")
_RULES = ("stage", "rule", "counted", "95%_between", "limit", "of_at_least", "met", "text")
EVERYONE = StageSpec(name="all", percent=100)


@app.command()
def create(
    release: Annotated[str, typer.Option(help="PRODUCT/VERSION, published.")],
    rollout: Annotated[str, typer.Argument(help="An id; by default the next r-N.", show_default=False)] = "",
    group: Annotated[str | None, typer.Option(help="Members: devices of this group.")] = None,
    selector: Annotated[str | None, typer.Option(help="Members: site=lab,hardware!=rev-a,line in (1,2).")] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(help="NAME=25% of all members so far, NAME=group:GROUP or NAME=SELECTOR; repeat in order."),
    ] = None,
    success: Annotated[str, typer.Option(help="Share of finished devices that must succeed.")] = "0.95",
    min_sample: Annotated[int, typer.Option(min=1, help="Finished devices before success is judged.")] = 1,
    soak: Annotated[str, typer.Option(help="How long success must hold before the next stage: 90s, 15m, 2h.")] = "0s",
    halt: Annotated[str, typer.Option(help="Share of finished devices whose failure halts.")] = "0.1",
    halt_min_sample: Annotated[int, typer.Option(min=1, help="Finished devices before that is judged.")] = 3,
    halt_count: Annotated[int | None, typer.Option(min=1, help="Failures that halt, whatever the share.")] = None,
    pace: Annotated[float | None, typer.Option(help="Offers per minute; by default as fast as devices ask.")] = None,
    start_at: Annotated[str, typer.Option(help="Start by itself then: 2026-12-01T03:00:00Z.")] = "",
    min_battery: Annotated[int | None, typer.Option(min=0, max=100, help="Least charge in percent.")] = None,
    require_approval: Annotated[bool, typer.Option("--require-approval", help="A person there must agree.")] = False,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Make a plan and choose its members. Nothing is sent before it starts."""
    if rollout:
        read_id(rollout, "rollout id")
    words: dict[str, Any] = {
        "release": str(read_release(release)),
        "members": _members(group, selector),
        "stages": [read_stage(text) for text in stage] if stage else [EVERYONE],
        "success_ratio": read_ratio(success, "--success"),
        "min_sample": min_sample,
        "soak_s": read_duration(soak, "--soak"),
        "halt_ratio": read_ratio(halt, "--halt"),
        "halt_min_sample": halt_min_sample,
        "halt_count": halt_count,
        "pace_per_minute": pace,
        "start_at": read_instant(start_at, "--start-at") if start_at else None,
        "policy": Policy(min_battery_percent=min_battery, require_approval=require_approval or None),
    }
    with usage():
        spec = RolloutSpec(**words)
    body = {"id": rollout or None, "spec": spec.model_dump(mode="json")}
    made = ApiClient(home).post("/rollouts", body)
    how = "it starts by itself" if start_at else f"start it with 'flagship rollout start {made['id']}'"
    show_done(f"rollout {made['id']}: {made['state']}, {_stages(made)}; {how}", made, output)


@app.command("list")
def list_rollouts(output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """List rollouts."""
    show_rows(_COLUMNS, ApiClient(home).pages("/rollouts"), output)


@app.command()
def show(rollout: RolloutArgument, output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """Show one rollout's plan, where it stands, and each rule with its figures."""
    found = ApiClient(home).get(f"/rollouts/{read_id(rollout, 'rollout id')}")
    if output is Format.JSON:
        show_fields(found, output)
        return
    rules = found.pop("rules")
    show_fields(found, output)
    show_rows(_RULES, [_rule(rule) for rule in rules], output)


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    share = rule["limit"] <= 1 and not rule["rule"].endswith("_count")
    between = f"{rule['low']:.1%} to {rule['high']:.1%}" if "low" in rule else ""
    return {
        **rule,
        "counted": f"{rule['numerator']} of {rule['denominator']}",
        "limit": f"{rule['limit']:g}" if not share else f"{rule['limit'] * 100:g}%",
        "of_at_least": rule["sample"] if share else "",
        "95%_between": between,
    }


@app.command()
def status(rollout: RolloutArgument, output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """Show a rollout as dashboards see it: stages, counts, rules with their figures."""
    found = asyncio.run(read_rollout(Home(home), read_id(rollout, "rollout id")))
    show_rollout(found, output)


@app.command()
def watch(
    rollout: RolloutArgument,
    timeout: Annotated[str, typer.Option(help="Give up after this long, exit code 8: 90s, 15m, 2h.")] = "",
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Follow a rollout until it ends; exit code 0 if it completed, 6 if it halted or was aborted."""
    limit_s = read_duration(timeout, "--timeout") if timeout else None
    if limit_s == 0:
        raise UsageError("--timeout 0: expected a time above 0")
    asyncio.run(follow_rollout(Home(home), read_id(rollout, "rollout id"), output, limit_s))


def _members(group: str | None, selector: str | None) -> Members:
    # An empty word is a shell variable that was not set: it must not come to mean the whole fleet.
    for option, text in (("--group", group), ("--selector", selector)):
        if text is not None and not text.strip():
            raise UsageError(f"{option} '': expected devices, found nothing; leave it out to mean every device")
    with usage():
        return Members(group=group, selector=selector)


def _stages(rollout: dict[str, Any]) -> str:
    return ", ".join(f"{stage['name']} {stage['members']}" for stage in rollout["stages"]) + " devices"
