"""``flagship status``: the fleet as dashboards see it, from the retained status topics."""

import asyncio
from contextlib import aclosing

from rich.console import Group
from rich.text import Text

from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, cell, console, show_json, table
from orchestrator.cli.watching import StatusReader
from orchestrator.config import Home
from orchestrator.errors import NotFoundError
from protocol.status_messages import FleetStatus, RolloutStatus
from protocol.topics import Kind

FIRST_S = 5.0
_COLUMNS = ("rollout", "release", "state", "devices", "succeeded", "failed", "rolled back", "untouched", "reason")


def status(output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """Show the fleet: devices, versions, rollouts."""
    fleet, rollouts = asyncio.run(read_fleet(Home(home)))
    if output is Format.JSON:
        found = [rollout.model_dump(mode="json") for rollout in rollouts]
        show_json({**fleet.model_dump(mode="json"), "rollouts": found})
        return
    head = Text(
        f"fleet {fleet.fleet}: {fleet.devices} devices, {fleet.online} online, {fleet.revoked} revoked"
        f"{_concerns(fleet)}{', A ROLLOUT IS HALTED' if fleet.halted else ''}"
        f"{f'{chr(10)}SIGNER: {cell(fleet.signer)}' if fleet.signer else ''}\nversions: {cell(fleet.versions)}"
    )
    console().print(Group(head, table(_COLUMNS, [_row(rollout) for rollout in rollouts])) if rollouts else head)


def _concerns(fleet: FleetStatus) -> str:
    found = (("silent", fleet.silent), ("stale", fleet.stale), ("found twice", fleet.duplicate))
    return "".join(f", {number} {name}" for name, number in found if number)


async def read_fleet(home: Home) -> tuple[FleetStatus, list[RolloutStatus]]:
    """The fleet's status and those of the rollouts that it names, as far as the broker has them.

    Raises:
        NotFoundError: The broker has no status of this fleet.
        UnreachableError: The broker does not answer.
    """
    fleet: FleetStatus | None = None
    rollouts: dict[str, RolloutStatus] = {}
    topics: list[tuple[Kind, dict[str, str]]] = [(Kind.STATUS_FLEET, {}), (Kind.STATUS_ROLLOUT, {})]
    try:
        async with asyncio.timeout(FIRST_S), aclosing(StatusReader(home).read(topics)) as statuses:
            async for found in statuses:
                match found:
                    case FleetStatus():
                        fleet = found
                    case RolloutStatus():
                        rollouts[found.id] = found
                    case _:
                        continue
                if fleet is not None and fleet.rollouts.keys() <= rollouts.keys():
                    break
    except TimeoutError:
        pass
    if fleet is None:
        raise NotFoundError(
            f"the broker has no status of this fleet within {FIRST_S:g} s; is it the broker of {home.path}?"
        )
    return fleet, [rollouts[name] for name in sorted(rollouts)]


def _row(rollout: RolloutStatus) -> list[str]:
    return [
        rollout.id,
        rollout.release,
        rollout.state,
        str(rollout.members),
        str(rollout.succeeded),
        str(rollout.failed),
        str(rollout.rolled_back),
        str(rollout.untouched),
        cell(rollout.reason),
    ]
