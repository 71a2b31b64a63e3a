"""``flagship group``: create, list, show, add, remove."""

from typing import Annotated

import typer

from orchestrator.cli.client import ApiClient
from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, show_done, show_fields, show_rows
from orchestrator.cli.words import read_id, read_ids

app = typer.Typer(help="Name sets of devices.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The group.")]
DevicesArgument = Annotated[list[str], typer.Argument(help="Ids of enrolled devices.")]


@app.command()
def create(
    name: NameArgument,
    devices: Annotated[list[str] | None, typer.Argument(help="Its first members.")] = None,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Create a group, with members if they are named."""
    body = {"name": read_id(name, "group"), "devices": read_ids(devices or [], "device id")}
    made = ApiClient(home).post("/groups", body)
    show_done(f"group {name}: created with {len(made['devices'])} devices", made, output)


@app.command("list")
def list_groups(output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """List groups."""
    show_rows(("name", "devices"), ApiClient(home).pages("/groups"), output)


@app.command()
def show(name: NameArgument, output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """Show one group's devices."""
    show_fields(ApiClient(home).get(f"/groups/{read_id(name, 'group')}"), output)


@app.command()
def add(
    name: NameArgument, devices: DevicesArgument, output: FormatOption = Format.TABLE, home: HomeOption = HERE
) -> None:
    """Put devices into a group: all that are named or none."""
    body = {"devices": read_ids(devices, "device id")}
    now = ApiClient(home).post(f"/groups/{read_id(name, 'group')}/devices", body)
    show_done(f"group {name}: {len(now['devices'])} devices", now, output)


@app.command()
def remove(
    name: NameArgument, devices: DevicesArgument, output: FormatOption = Format.TABLE, home: HomeOption = HERE
) -> None:
    """Take devices out of a group: all that are named or none."""
    body = {"devices": read_ids(devices, "device id")}
    now = ApiClient(home).post(f"/groups/{read_id(name, 'group')}/devices/remove", body)
    show_done(f"group {name}: {len(now['devices'])} devices", now, output)
