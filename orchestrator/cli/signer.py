"""``flagship signer``: the room with the online keys, as a process of its own; and what a person may ask of it."""

import asyncio
import signal
from typing import Annotated

import structlog
import typer

from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, show_done
from orchestrator.cli.serve import log_to_stderr
from orchestrator.config import Home
from orchestrator.errors import UsageError
from orchestrator.signer.opening import open_here, open_room
from orchestrator.signer.request_log import check_log
from orchestrator.signer.server import SignerServer

log = structlog.get_logger(__name__)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def run(context: typer.Context, home: HomeOption = HERE) -> None:
    """Sign for a serve whose config.toml names signer.socket, until SIGTERM."""
    context.obj = home
    if context.invoked_subcommand is None:
        log_to_stderr()
        asyncio.run(_serve(Home(home)))


@app.command("lift")
def lift(
    context: typer.Context,
    rollout: Annotated[str, typer.Argument(help="the rollout")],
    reason: Annotated[str, typer.Option(help="why it may go on")],
    output: FormatOption = Format.TABLE,
) -> None:
    """End a halt that the database does not know of, such as after the restore of an older one."""
    home = Home(context.obj)
    with open_room(home, home.load()) as signer:
        signer.lift(rollout, reason)
    show_done(f"rollout {rollout}: the signer's halt is lifted", {"rollout": rollout, "lifted": True}, output)


@app.command("check-log")
def check(context: typer.Context, output: FormatOption = Format.TABLE) -> None:
    """Check that no line of the signer's log was changed, moved or left out."""
    home = Home(context.obj)
    lines, head = check_log(home.signer / "requests.log")
    fields = {"lines": lines, "last": head.n, "h": head.h, "epoch": head.order[0], "seq": head.order[1]}
    show_done(f"{lines} lines, whole; the last is {head.n}, {head.h}", fields, output)


async def _serve(home: Home) -> None:
    settings = home.load()
    path = home.signer_socket(settings)
    if path is None:
        raise UsageError(
            f'{home.config}: names no socket; serve signs by itself. Add [signer] socket = "signer.sock" first'
        )
    told = asyncio.Event()
    with open_here(home, settings) as signer:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told.set)
        async with SignerServer(signer, path, settings.signer.deadline_s).listening():
            log.info("signing", home=str(home.path), socket=str(path), director=signer.director_keyid)
            await told.wait()
    log.info("signer ended")
