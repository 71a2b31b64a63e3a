"""``flagship rollout``: create, list, show, status, watch; other commands stand in modules of their own."""

import asyncio
import sys
from textwrap import indent
from typing import Annotated, Any

import typer
import yaml

from orchestrator.cli import rollout_offline, rollout_plan, rollout_verbs
from orchestrator.cli.client import PLAN_TIMEOUT_S, ApiClient
from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, show_done, show_fields, show_rows
from orchestrator.cli.plan_words import takes_plan
from orchestrator.cli.rollout_verbs import RolloutArgument
from orchestrator.cli.rollout_view import follow_rollout, read_rollout, show_rollout
from orchestrator.cli.words import read_duration, read_id
from orchestrator.config import Home
from orchestrator.errors import UsageError
from orchestrator.model.plan import RolloutSpec

app = typer.Typer(help="Bring a release to devices, stage by stage.", no_args_is_help=True)
rollout_verbs.add_to(app)
rollout_offline.add_to(app)
rollout_plan.add_to(app)

_COLUMNS = ("id", "release", "state", "reason", "created_at", "started_at", "ended_at")
_NOTHING: tuple[object, ...] = (None, "", False)
_STAGES = ("name", "state", "members", "opened_at", "soaking_since", "passed_at")
_RULES = ("stage", "rule", "counted", "95%_between", "limit", "of_at_least", "met", "text")


@app.command()
@takes_plan
def create(
    spec: RolloutSpec,
    rollout: Annotated[str, typer.Argument(help="An id; by default the next r-N.", show_default=False)] = "",
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Make a plan and choose its members. Nothing is sent before it starts."""
    if rollout:
        read_id(rollout, "rollout id")
    body = {"id": rollout or None, "spec": spec.model_dump(mode="json")}
    made = ApiClient(home).post("/rollouts", body, timeout=PLAN_TIMEOUT_S)
    how = "it starts by itself" if spec.start_at else f"start it with 'flagship rollout start {made['id']}'"
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
    rules, stages, plan = found.pop("rules"), found.pop("stages"), found.pop("spec")
    show_fields({name: value for name, value in found.items() if value not in _NOTHING}, output)
    show_rows(_STAGES, stages, output)
    show_rows(_RULES, [_rule(rule) for rule in rules], output)
    sys.stdout.write(f"plan:\n{indent(plan_text(plan), '  ')}")


def plan_text(plan: dict[str, Any]) -> str:
    """A plan as it may stand in a file: only what is said, in YAML."""
    said = RolloutSpec.model_validate(plan).model_dump(mode="json", exclude_defaults=True)
    return str(yaml.safe_dump(said, sort_keys=False, default_flow_style=None, width=100))


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


def _stages(rollout: dict[str, Any]) -> str:
    return ", ".join(f"{stage['name']} {stage['members']}" for stage in rollout["stages"]) + " devices"
