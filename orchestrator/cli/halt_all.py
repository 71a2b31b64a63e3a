"""``flagship halt-all``: one latch for the whole fleet."""

from typing import Annotated

import typer

from orchestrator.cli.client import ApiClient
from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, show_done
from orchestrator.errors import HaltedError, UsageError


def halt_all(
    reason: Annotated[str, typer.Option(help="Why; it stands in the record. Needed to lift the halt.")] = "",
    lift: Annotated[bool, typer.Option("--lift", help="Let the fleet go on.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only say whether it is halted: exit code 6 if so.")] = False,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Hold every device of every rollout that is not installing yet; answers when nothing is on its way any more."""
    if lift and check:
        raise UsageError("--lift, --check: one of the two")
    api = ApiClient(home)
    if check:
        found = api.get("/fleet/halt")
        if found["halted"]:
            raise HaltedError(f"the fleet is halted since {found['at']}, by {found['by']}: {found['reason']}")
        show_done("the fleet is not halted", found, output)
        return
    done = api.post("/fleet/lift" if lift else "/fleet/halt", {"reason": reason} if reason else {})
    names = ", ".join(done["rollouts"]) or "no rollout under way"
    cut = f"; cut off, as it did not answer: {', '.join(done['brokers_cut'])}" if done.get("brokers_cut") else ""
    sentence = f"the fleet goes on: {names}" if lift else f"the fleet is halted: {names}{cut}"
    show_done(sentence, done, output)
