"""``flagship device``: enrol, list, show, explain, revoke, retire, clear-duplicate."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import device_claim, device_requests
from orchestrator.cli.client import ApiClient
from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, cell, show_fields, show_json, show_rows
from orchestrator.cli.words import read_id, usage
from orchestrator.errors import NotFoundError, OperationError, UsageError
from protocol.enrolment import MAX_REQUEST_BYTES, EnrolmentAnswers, EnrolmentRequest

MAX_REQUESTS = 1000
_COLUMNS = ("id", "product", "hardware", "components", "labels", "state", "online", "last_seen")

app = typer.Typer(help="Enrol and list devices.", no_args_is_help=True)
app.add_typer(device_claim.app, name="claim")
device_requests.add_to(app)


@app.command()
def enrol(
    requests: Annotated[list[Path], typer.Argument(help="Files that 'flagship-device enrol' wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the answers go.")],
    home: HomeOption = HERE,
) -> None:
    """Admit devices: all of the requests or, if one is refused, none."""
    if len(requests) > MAX_REQUESTS:
        raise UsageError(f"enrol: expected at most {MAX_REQUESTS} requests at once, found {len(requests)}")
    client = ApiClient(home)
    asked = [_read_request(file) for file in requests]
    # The file is made first: an answer that cannot be written would leave devices enrolled and unanswered.
    draft = _draft_beside(output)
    try:
        body = {"requests": [request.model_dump(mode="json") for request in asked]}
        answers = EnrolmentAnswers.model_validate(client.post("/devices", body))
        _put_in_place(draft, output, answers.model_dump_json(indent=1) + "\n")
    finally:
        draft.unlink(missing_ok=True)
    typer.echo(f"{output}: {len(answers.answers)} devices enrolled; run 'flagship-device enrol --accept FILE' there")


@app.command("list")
def list_devices(
    group: Annotated[str, typer.Option(help="Only those of this group.")] = "",
    silent: Annotated[bool, typer.Option("--silent", help="Only those of which nothing is heard.")] = False,
    stale: Annotated[bool, typer.Option("--stale", help="Only those that may be cut off.")] = False,
    duplicate: Annotated[bool, typer.Option("--duplicate", help="Only those that were found twice.")] = False,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """List devices."""
    chosen = read_id(group, "group") if group else ""
    concerns = [name for name, asked in (("silent", silent), ("stale", stale), ("duplicate", duplicate)) if asked]
    if len(concerns) + bool(chosen) > 1:
        raise UsageError("device list: expected one of --group, --silent, --stale and --duplicate, found several")
    if not concerns:
        show_rows(_COLUMNS, ApiClient(home).pages("/devices", group=chosen), output)
        return
    columns = ("id", "product", "components", "labels", "online", f"{concerns[0]}_since", "last_seen")
    show_rows(columns, ApiClient(home).pages("/devices", concern=concerns[0]), output)


@app.command()
def show(
    device: Annotated[str, typer.Argument(help="The device's id.")],
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Show one device: what it runs, its groups, where its newest update stands."""
    show_fields(ApiClient(home).get(f"/devices/{read_id(device, 'device id')}"), output)


@app.command()
def explain(
    device: Annotated[str, typer.Argument(help="The device's id.")],
    rollout: Annotated[str, typer.Option(help="Only this rollout, also where the device takes no part.")] = "",
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Say why a device is where it is: what it refuses, what it waits for, what it was told."""
    chosen = read_id(rollout, "rollout") if rollout else ""
    answer = ApiClient(home).get(f"/devices/{read_id(device, 'device id')}/explain", rollout=chosen)
    if output is Format.JSON:
        show_json(answer)
        return
    for sentence in answer["sentences"]:
        typer.echo(cell(sentence))
    for found in answer["logs"]:
        typer.echo(f"Rollout {cell(found['rollout'])}, attempt {found['attempt']}: the end of what was written there:")
        for line in found["log"].splitlines():
            typer.echo(f"  | {cell(line) if line else ''}".rstrip())


Device = Annotated[str, typer.Argument(help="The device's id.")]
Reason = Annotated[str, typer.Option(help="Why; it stands in the events.")]


@app.command()
def revoke(device: Device, reason: Reason, output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """Trust a device no more: certificates refused, session ended, reports ignored, nothing offered. Not taken back."""
    _close(device, "revoke", reason, output, home)


@app.command()
def retire(device: Device, reason: Reason, output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """Let a device go in peace; its id may be enrolled again."""
    _close(device, "retire", reason, output, home)


@app.command("clear-duplicate")
def clear_duplicate(
    device: Device, reason: Reason, output: FormatOption = Format.TABLE, home: HomeOption = HERE
) -> None:
    """Offer updates again to a device that was found twice; the other one must be gone."""
    found = ApiClient(home).post(f"/devices/{read_id(device, 'device id')}/clear-duplicate", {"reason": reason})
    show_fields(found, output)


def _close(device: str, verb: str, reason: str, output: Format, home: Path) -> None:
    found = ApiClient(home).post(f"/devices/{read_id(device, 'device id')}/{verb}", {"reason": reason})
    shown = ("id", "state", "closed_at", "closed_reason", "excluded_from", "session_ended_at", "pending")
    show_fields({name: found[name] for name in shown}, output)


def _read_request(file: Path) -> EnrolmentRequest:
    try:
        with file.open("rb") as source:
            raw = source.read(MAX_REQUEST_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"{file}: no such request; make it with 'flagship-device enrol' on the device") from error
    except OSError as error:
        raise OperationError(f"{file}: cannot be read: {error.strerror}") from error
    if len(raw) > MAX_REQUEST_BYTES:
        raise UsageError(f"{file}: expected a request of at most {MAX_REQUEST_BYTES} B, found a larger file")
    with usage(f"{file}: not a request of 'flagship-device enrol'"):
        return EnrolmentRequest.model_validate_json(raw)


def _draft_beside(output: Path) -> Path:
    if output.is_dir():
        raise UsageError(f"-o {output}: expected a file, found a directory")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{output.name}.", dir=output.parent)
    except OSError as error:
        raise OperationError(f"-o {output}: cannot be written: {error.strerror}; nothing was enrolled") from error
    os.close(handle)
    return Path(name)


def _put_in_place(draft: Path, output: Path, text: str) -> None:
    with draft.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.chmod(0o644)
    draft.replace(output)
