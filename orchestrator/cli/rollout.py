"""``flagship rollout``: plan, create, start, pause, resume, halt, abort, list, show, status, watch, offline."""

import asyncio
from typing import Annotated, Any

import typer

from orchestrator.cli import rollout_offline, rollout_plan
from orchestrator.cli.client import ApiClient
from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, show_done, show_fields, show_rows
from orchestrator.cli.plan_words import takes_plan
from orchestrator.cli.rollout_view import follow_rollout, read_rollout, show_rollout
from orchestrator.cli.words import read_duration, read_id
from orchestrator.config import Home
from orchestrator.errors import UsageError
from orchestrator.model.plan import RolloutSpec

app = typer.Typer(help="Bring a release to devices, stage by stage.", no_args_is_help=True)
rollout_offline.add_to(app)
rollout_plan.add_to(app)

_COLUMNS = ("id", "release", "state", "reason", "created_at", "started_at", "ended_at")

RolloutArgument = Annotated[str, typer.Argument(help="The rollout's id, such as r-1.")]
ReasonOption = Annotated[str, typer.Option(help="Why; it stands in the record and in the announcement's status.")]


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
    made = ApiClient(home).post("/rollouts", body)
    how = "it starts by itself" if spec.start_at else f"start it with 'flagship rollout start {made['id']}'"
    show_done(f"rollout {made['id']}: {made['state']}, {_stages(made)}; {how}", made, output)


@app.command("list")
def list_rollouts(output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """List rollouts."""
    show_rows(_COLUMNS, ApiClient(home).pages("/rollouts"), output)


@app.command()
def show(rollout: RolloutArgument, output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """Show one rollout's plan and where it stands."""
    show_fields(ApiClient(home).get(f"/rollouts/{read_id(rollout, 'rollout id')}"), output)


@app.command()
def start(rollout: RolloutArgument, output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """Announce the rollout and open its first stage."""
    _order(home, rollout, "start", "", output)


@app.command()
def pause(
    rollout: RolloutArgument, reason: ReasonOption = "", output: FormatOption = Format.TABLE, home: HomeOption = HERE
) -> None:
    """Make no new offers; devices that have one go on."""
    _order(home, rollout, "pause", reason, output)


@app.command()
def resume(
    rollout: RolloutArgument, reason: ReasonOption = "", output: FormatOption = Format.TABLE, home: HomeOption = HERE
) -> None:
    """Go on after a pause or, with a reason, after a halt."""
    _order(home, rollout, "resume", reason, output)


@app.command()
def halt(
    rollout: RolloutArgument, reason: ReasonOption = "", output: FormatOption = Format.TABLE, home: HomeOption = HERE
) -> None:
    """Hold every device that is not installing yet; answers when nothing is on its way any more."""
    _order(home, rollout, "halt", reason, output)


@app.command()
def abort(
    rollout: RolloutArgument, reason: ReasonOption = "", output: FormatOption = Format.TABLE, home: HomeOption = HERE
) -> None:
    """End it for good: devices cancel, or roll back where they can. Nothing undoes this."""
    _order(home, rollout, "abort", reason, output)


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


def _order(home: Any, rollout: str, verb: str, reason: str, output: Format) -> None:  # noqa: ANN401
    path = f"/rollouts/{read_id(rollout, 'rollout id')}/{verb}"
    now = ApiClient(home).post(path, {"reason": reason} if reason else {})
    cut = f"; cut off, as it did not answer: {', '.join(now['brokers_cut'])}" if now.get("brokers_cut") else ""
    show_done(f"rollout {rollout}: {now['state']}{cut}", now, output)


def _stages(rollout: dict[str, Any]) -> str:
    return ", ".join(f"{stage['name']} {stage['members']}" for stage in rollout["stages"]) + " devices"
