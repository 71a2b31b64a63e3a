"""``flagship audit``: what was ordered and decided, and whether the log of it is the one that was written."""

import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.client import ApiClient
from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, cell, show_fields, show_json
from orchestrator.config import Home
from orchestrator.errors import OperationError, UsageError
from orchestrator.model.audit import Problem, SignedHead
from orchestrator.releases.director_history import listed_directors
from orchestrator.rollouts.head_claims import claims_of
from orchestrator.rollouts.verifying import Checked, Claim, Verification
from orchestrator.signer.facts import read_audit_mark
from orchestrator.storage.audit_file import LogFile, open_log
from protocol.clock import rfc3339

SHOWN = 20
"""Problems that are printed; more are counted."""
POLL_S = 1.0
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


@app.command("verify")
def verify(
    rollout: Annotated[str, typer.Option(help="judge this rollout's counters and decisions alone")] = "",
    expect: Annotated[
        list[str] | None, typer.Option(metavar="ENTRY:HASH", help="a head that was noted elsewhere before")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="a TUF root that was kept elsewhere, instead of the home's oldest")
    ] = None,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Find changed, missing and reordered entries, count and decide again; needs no serve. Exit code 1: a problem."""
    place = Home(home)
    fleet = place.load().fleet
    claims = [_expected(text) for text in expect or []]
    mark = read_audit_mark(place.signer / "facts.json")  # before the snapshot: what was signed is in the log by then
    if mark is not None:
        claims.append(Claim(mark.entry, mark.digest, "the signer's memory"))
    keys = listed_directors(place.trust, fleet, root)
    with open_log(place.database) as log:
        heads, signed, problems = claims_of(log.heads(), keys, fleet)
        found = _Findings(problems)
        checked = _read(log, Verification([*signed, *claims], rollout), found)
    _show(checked, heads, found, output)
    if found.count:
        raise typer.Exit(OperationError.exit_code)


@app.command("tail")
def tail(
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, max=1000, help="how many of the newest")] = 20,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="go on with what is added")] = False,
    rollout: Annotated[str, typer.Option(help="of this rollout alone")] = "",
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Print the newest entries, the oldest of them first; JSON is one object in a line."""
    client = ApiClient(home)
    newest = client.get("/audit", limit=max(1, lines), newest="true", rollout=rollout)["items"]
    last = newest[0]["id"] if newest else 0
    for entry in reversed(newest[:lines]):
        _print(entry, output)
    while follow:
        page = client.get("/audit", limit=1000, cursor=str(last), rollout=rollout)
        for entry in page["items"]:
            _print(entry, output)
            last = entry["id"]
        if not page["next"]:
            time.sleep(POLL_S)


@app.command("show")
def show(
    entry: Annotated[int, typer.Argument(min=1, metavar="ID", help="number of the entry")],
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """One entry with its figures."""
    show_fields(ApiClient(home).get(f"/audit/{entry}"), output)


class _Findings:
    """The first problems, and how many there are."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.first: list[Problem] = []
        self.count = 0
        self.add(problems)

    def add(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.count += 1
            if len(self.first) < SHOWN:
                self.first.append(problem)


def _expected(text: str) -> Claim:
    number, _, digest = text.partition(":")
    if not number.isdecimal() or len(digest) != 64:
        raise UsageError(f"--expect {text}: expected ENTRY:HASH, as 'flagship audit verify' prints its last entry")
    return Claim(int(number), digest.lower(), f"--expect {number}")


def _read(log: LogFile, verification: Verification, found: _Findings) -> Checked:
    for entry, unreadable in log.entries():
        found.add(verification.see(entry, unreadable))
    found.add(verification.finish(log.counts()))
    return verification.checked


def _show(checked: Checked, heads: list[SignedHead], found: _Findings, output: Format) -> None:
    if output is Format.JSON:
        problems = [asdict(problem) for problem in found.first]
        show_json({**asdict(checked), "heads": len(heads), "problems": problems, "problem_count": found.count})
        return
    for problem in found.first:
        where = f"entry {problem.entry}" if problem.entry else "log"
        typer.echo(f"FAIL  {where}: {cell(problem.text)}")
    if found.count > len(found.first):
        typer.echo(f"FAIL  and {found.count - len(found.first)} more")
    for line in _lines(checked, heads):
        typer.echo(f"{'saw' if found.count else 'ok':5} {line}")


def _lines(checked: Checked, heads: list[SignedHead]) -> list[str]:
    signed = f"{len(heads)} signed by the fleet's director"
    if heads:
        signed += f", the last at {rfc3339(heads[-1].at)} over entry {heads[-1].id}"
    after = max(0, checked.last - checked.anchored)
    again = f"{checked.decisions} decided again"
    if checked.other_versions:
        again += f"; {checked.other_versions} by another version of the engine, not decided again"
    counted = f"{checked.counters} against {checked.moves} entries of moves"
    if checked.recounted:
        counted += f"; counted anew at entry {', '.join(map(str, checked.recounted[-5:]))}"
    return [
        f"chain: {checked.entries} entries, the last is {checked.last}:{checked.hash}",
        f"heads: {signed}; {after} entries after what was signed",
        f"counters: {counted}",
        f"decisions: {again}",
    ]


def _print(entry: dict[str, Any], output: Format) -> None:
    if output is Format.JSON:
        show_json(entry)
        return
    about = " ".join(text for text in (entry["rollout"], entry["device"]) if text)
    typer.echo(
        f"{entry['id']:>7}  {entry['at']}  {entry['kind']:8}  {cell(entry['actor']):12}  {about or '-':16}  "
        f"{cell(entry['cause'])}"
    )
