"""``flagship device pending``, ``approve``, ``reject``: devices that ask under a claim and wait for a person."""

import re
from typing import Annotated

import typer

from orchestrator.cli.client import ApiClient
from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, show_rows
from orchestrator.errors import UsageError

_COLUMNS = ("id", "serial", "device", "product", "hardware", "claim", "comes_back", "keyid", "asked_at")
_ID = re.compile(r"e-[0-9a-f]{12}\Z")
Request = Annotated[str, typer.Argument(metavar="ID", help="The request's id; 'flagship device pending' names it.")]


def add_to(app: typer.Typer) -> None:
    """Make these commands part of ``flagship device``."""
    app.command()(pending)
    app.command()(approve)
    app.command()(reject)


def pending(output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """List devices that ask for a certificate; compare the key's id with what the device says."""
    show_rows(_COLUMNS, ApiClient(home).pages("/enrolments"), output)


def approve(request: Request, home: HomeOption = HERE) -> None:
    """Admit a device that waits."""
    item = ApiClient(home).post(f"/enrolments/{_request(request)}/approve", {})
    typer.echo(f"{item['device']}: admitted; it gets its certificate when it asks again")


def reject(
    request: Request,
    reason: Annotated[str, typer.Option(help="Told to the device.")] = "",
    home: HomeOption = HERE,
) -> None:
    """Refuse a device that waits."""
    item = ApiClient(home).post(f"/enrolments/{_request(request)}/reject", {"reason": reason})
    typer.echo(f"{item['device']}: request {item['id']} rejected")


def _request(text: str) -> str:
    if not _ID.match(text):
        raise UsageError(f"request {text[:40]!r}: expected an id such as e-0123456789ab; see 'flagship device pending'")
    return text
