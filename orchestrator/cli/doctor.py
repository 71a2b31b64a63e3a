"""``flagship doctor``: what is wrong with a home, or soon will be. Reads files only, so it works when nothing runs."""

from datetime import UTC, datetime

import typer

from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, show_json
from orchestrator.config import Home
from orchestrator.errors import OperationError
from orchestrator.expiries import expiring_in
from orchestrator.expiry import SEVERITY, Expiring, Level
from protocol.clock import rfc3339

WAITS = 7
_WORDS = {Level.FINE: "ok", Level.EXPIRED: "FAIL"}


def doctor(output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """Check the home: exit code 0 all is well, 7 somebody must act soon, 1 something is broken or has run out."""
    place, now = Home(home), datetime.now(UTC)
    place.load()
    try:
        things, broken = expiring_in(place), ""
    except OperationError as error:
        things, broken = [], str(error)
    if output is Format.JSON:
        files = [{"check": "files", "state": "FAIL", "text": broken}] if broken else []
        show_json([*files, *(_row(thing, now) for thing in things)])
    else:
        if broken:
            typer.echo(f"FAIL  {broken}")
        for thing in things:
            typer.echo(f"{_row(thing, now)['state']:5} {thing.sentence(now)}")
    levels = [thing.level(now) for thing in things]
    if broken or Level.EXPIRED in levels:
        raise typer.Exit(OperationError.exit_code)
    if any(SEVERITY[level] for level in levels):
        raise typer.Exit(WAITS)


def _row(thing: Expiring, now: datetime) -> dict[str, str]:
    level = thing.level(now)
    return {
        "check": f"{thing.kind} {thing.name}",
        "state": _WORDS.get(level, "warn"),
        "level": level.value,
        "expires": rfc3339(thing.expires),
        "due": rfc3339(thing.due()),
        "text": thing.sentence(now),
    }
