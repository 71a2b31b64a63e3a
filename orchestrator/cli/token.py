"""``flagship token``: create, list, revoke."""

from typing import Annotated

import typer

from orchestrator.cli.client import ApiClient
from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, show_done, show_rows
from orchestrator.cli.words import read_id
from orchestrator.errors import UsageError
from orchestrator.model.actor import looks_like_token

app = typer.Typer(help="Name who may speak to serve.", no_args_is_help=True)

_COLUMNS = ("name", "created_at", "created_by", "last_used_at", "revoked_at")
NameArgument = Annotated[str, typer.Argument(help="Who uses the token; stands in the events.")]


@app.command()
def create(name: NameArgument, output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """Make a token and print it, this once. The home's admin token alone may."""
    made = ApiClient(home).post("/tokens", {"name": _read_name(name)})
    show_done(made["token"], made, output)
    if output is Format.TABLE:
        typer.echo(f"{name}: this token is shown only now; keep it where nobody else can read it", err=True)


@app.command("list")
def list_tokens(output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """List names, also those whose token was revoked; never a token."""
    show_rows(_COLUMNS, ApiClient(home).pages("/tokens"), output)


@app.command()
def revoke(name: NameArgument, output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """Take a token's power from it, at once. The home's admin token alone may."""
    done = ApiClient(home).post(f"/tokens/{_read_name(name)}/revoke")
    show_done(f"{name}: token revoked", done, output)


def _read_name(text: str) -> str:
    if looks_like_token(text):
        raise UsageError(
            "token: expected a name, found a token; revoke it by its name, for shells write down what they run"
        )
    return read_id(text, "token name")
