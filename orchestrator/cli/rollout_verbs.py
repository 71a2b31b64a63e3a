"""The verbs of ``flagship rollout``: each orders one thing, and says what became of it."""

from typing import Annotated, Any

import typer

from orchestrator.cli.client import PLAN_TIMEOUT_S, TIMEOUT_S, ApiClient
from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, show_done
from orchestrator.cli.words import read_id, read_ids, read_release
from orchestrator.model.failure import FailureClass

SOME = 3
RolloutArgument = Annotated[str, typer.Argument(help="The rollout's id, such as r-1.")]
ReasonOption = Annotated[str, typer.Option(help="Why; it stands in the record and in the announcement's status.")]
VersionOption = Annotated[
    int | None,
    typer.Option("--if-version", min=1, help="Only if the rollout is as you saw it: the version that 'show' names."),
]


def add_to(app: typer.Typer) -> None:
    """Make the verbs commands of ``flagship rollout``."""
    for verb in (submit, approve, reject, start, pause, resume, promote, halt, retry, abort, revert, clone):
        app.command()(verb)


def submit(
    rollout: RolloutArgument,
    reason: ReasonOption = "",
    if_version: VersionOption = None,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Hand a draft to somebody else to approve."""
    _order(home, rollout, "submit", output, reason=reason, version=if_version)


def approve(
    rollout: RolloutArgument,
    reason: ReasonOption = "",
    if_version: VersionOption = None,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Agree to a plan that another person submitted; it may be started then, or starts by itself at its time."""
    _order(home, rollout, "approve", output, reason=reason, version=if_version)


def reject(
    rollout: RolloutArgument,
    reason: ReasonOption = "",
    if_version: VersionOption = None,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Send a plan back to be a draft, with a reason."""
    _order(home, rollout, "reject", output, reason=reason, version=if_version)


def start(
    rollout: RolloutArgument,
    reason: ReasonOption = "",
    if_version: VersionOption = None,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Announce the rollout and open its first stage."""
    _order(home, rollout, "start", output, reason=reason, version=if_version)


def pause(
    rollout: RolloutArgument,
    reason: ReasonOption = "",
    if_version: VersionOption = None,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Make no new offers; devices that have one go on."""
    _order(home, rollout, "pause", output, reason=reason, version=if_version)


def resume(
    rollout: RolloutArgument,
    reason: ReasonOption = "",
    if_version: VersionOption = None,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Go on after a pause or, with a reason, after a halt."""
    _order(home, rollout, "resume", output, reason=reason, version=if_version)


def promote(
    rollout: RolloutArgument,
    if_version: VersionOption = None,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Open the next stage now, whatever the rule of the one before says."""
    _order(home, rollout, "promote", output, version=if_version)


def halt(
    rollout: RolloutArgument,
    reason: ReasonOption = "",
    if_version: VersionOption = None,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Hold every device that is not installing yet; answers when nothing is on its way any more."""
    _order(home, rollout, "halt", output, reason=reason, version=if_version)


def retry(
    rollout: RolloutArgument,
    device: Annotated[list[str] | None, typer.Option(help="Only this one; repeat for more. By default all.")] = None,
    failure: Annotated[
        list[FailureClass] | None, typer.Option("--class", help="Only failures of this class; repeat for more.")
    ] = None,
    reason: ReasonOption = "",
    if_version: VersionOption = None,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Let devices that failed try once more; this lifts the quarantine of those that rolled back."""
    devices = read_ids(device or [], "device id")
    _order(home, rollout, "retry", output, reason=reason, version=if_version, devices=devices, classes=failure or [])


def abort(
    rollout: RolloutArgument,
    reason: ReasonOption = "",
    if_version: VersionOption = None,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """End it for good: devices cancel, or roll back where they can. Nothing undoes this."""
    _order(home, rollout, "abort", output, reason=reason, version=if_version)


def revert(
    rollout: RolloutArgument,
    unhealthy: Annotated[
        bool, typer.Option("--unhealthy", help="Only devices left inconsistent, late or silent while being changed.")
    ] = False,
    begin: Annotated[
        bool, typer.Option("--start", help="Start at once; by default the rollouts back are drafts.")
    ] = False,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Bring devices back to what each ran before: a new rollout for every release that they came from."""
    path = f"/rollouts/{read_id(rollout, 'rollout id')}/revert"
    made = ApiClient(home).post(path, {"unhealthy": unhealthy, "start": begin}, timeout=PLAN_TIMEOUT_S)
    lines = [f"rollout {name}: brings back {release}" for release, name in made["rollouts"].items()]
    for left in made["stay"]:
        some = ", ".join(left["devices"][:SOME]) + (", ..." if left["count"] > SOME else "")
        lines.append(f"{left['count']} cannot go back: {left['why']} ({some})")
    if not begin:
        lines.append(f"start with: flagship rollout start {' '.join(made['rollouts'].values())}")
    show_done("\n".join(lines), made, output)


def clone(
    rollout: RolloutArgument,
    new: Annotated[str, typer.Argument(help="The new id; by default the next r-N.", show_default=False)] = "",
    release: Annotated[str, typer.Option(help="Another PRODUCT/VERSION under the same plan.")] = "",
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Make a new draft of a rollout's plan; times that are past are left out."""
    path = f"/rollouts/{read_id(rollout, 'rollout id')}/clone"
    words = {
        "id": read_id(new, "rollout id") if new else None,
        "release": str(read_release(release)) if release else None,
    }
    made = ApiClient(home).post(path, words, timeout=PLAN_TIMEOUT_S)
    sizes = ", ".join(f"{stage['name']} {stage['members']}" for stage in made["stages"])
    show_done(f"rollout {made['id']}: {made['state']}, {sizes} devices, the plan of {rollout}", made, output)


def _order(home: Any, rollout: str, verb: str, output: Format, **words: Any) -> None:  # noqa: ANN401
    path = f"/rollouts/{read_id(rollout, 'rollout id')}/{verb}"
    words = {name: value for name, value in words.items() if value}
    now = ApiClient(home).post(path, words, timeout=PLAN_TIMEOUT_S if verb == "start" else TIMEOUT_S)
    cut = f"; cut off, as it did not answer: {', '.join(now['brokers_cut'])}" if now.get("brokers_cut") else ""
    show_done(f"rollout {rollout}: {now['state']}{cut}", now, output)
