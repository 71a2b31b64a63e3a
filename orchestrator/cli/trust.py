"""``flagship trust``: what the offline keys sign beside releases."""

import typer

from orchestrator.cli import trust_connection

app = typer.Typer(help="Sign what devices trust.", no_args_is_help=True)
trust_connection.add_to(app)


@app.callback()
def _root() -> None:
    """Sign what devices trust."""
