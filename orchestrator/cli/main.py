"""``flagship``: finds the noun, imports its module alone, and turns every failure into one sentence.

Modules are imported when their noun is named: ``--help`` stays quick, and a publisher's machine needs none of the
orchestrator's packages.
"""

import errno
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer._click import exceptions as refusals
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from orchestrator.errors import OperationError
from protocol.errors import FlagshipError

USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141


@dataclass(frozen=True, slots=True)
class Noun:
    """Where a command lives: ``module:attribute``, a Typer app or one function."""

    place: str
    help: str


NOUNS = {
    "init": Noun("orchestrator.cli.init:init", "Make a fleet's home: keys, certificates, settings, database."),
    "serve": Noun("orchestrator.cli.serve:serve", "Run the orchestrator: API, engine, delivery, ingest, broker."),
    "signer": Noun("orchestrator.cli.signer:app", "Sign in a process of its own; lift halts; check the signer's log."),
    "demo": Noun("orchestrator.demo.cli:demo", "Play a staged rollout with mishaps on this machine."),
    "status": Noun("orchestrator.cli.status:status", "Show the fleet as dashboards see it."),
    "doctor": Noun("orchestrator.cli.doctor:doctor", "Say what is wrong with a home, or soon will be."),
    "audit": Noun("orchestrator.cli.audit:app", "Show and verify what was ordered and decided."),
    "release": Noun("orchestrator.cli.release:app", "Make, publish and list releases."),
    "trust": Noun("orchestrator.cli.trust:app", "Keys of roles, and the way to the fleet."),
    "device": Noun("orchestrator.cli.device:app", "Enrol and list devices."),
    "group": Noun("orchestrator.cli.group:app", "Name sets of devices."),
    "broker": Noun("orchestrator.cli.broker:app", "See whether a broker is fit."),
    "token": Noun("orchestrator.cli.token:app", "Name who may speak to serve, so that events say who did what."),
    "rollout": Noun("orchestrator.cli.rollout:app", "Bring a release to devices, stage by stage."),
    "simulate": Noun("orchestrator.cli.simulate:simulate", "Run a plan in virtual time against modelled devices."),
    "halt-all": Noun("orchestrator.cli.halt_all:halt_all", "Halt every rollout of the fleet at once, or lift that."),
}


class _Nouns(TyperGroup):
    """Shows every noun without importing it."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002
        return list(NOUNS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401, ARG002
        noun = NOUNS.get(cmd_name)
        return None if noun is None else TyperCommand(cmd_name, help=noun.help)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401
        if args and args[0] in NOUNS:
            return args[0], _load(args[0]), args[1:]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Nouns,
    name="flagship",
    help="Signed, staged, resumable software updates for fleets of devices over MQTT.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root(
    token_file: Annotated[  # token_choice reads it
        Path | None,
        typer.Option(
            "--token-file", help="Speak with the token in this file instead of the home's; a name of its own."
        ),
    ] = None,
) -> None:
    """Signed, staged, resumable software updates for fleets of devices over MQTT."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the console script's entry.

    Returns:
        The exit code of design, section 10.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if sys.stdout is None:
            raise OperationError("standard output is closed; open it, or send it to /dev/null")
        command = get_command(app)
        with command.make_context("flagship", words) as context:
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except typer.Exit as done:
        return done.exit_code
    except refusals.NoArgsIsHelpError as error:
        sys.stderr.write(error.format_message() + "\n")
        return USAGE
    except refusals.ClickException as error:
        return _say(_usage(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", INTERRUPTED)
    except SystemExit as left:  # rich, when the reader of a table went away
        return left.code if isinstance(left.code, int) else OperationError.exit_code
    except BrokenPipeError:
        _forget_stdout()
        return BROKEN_PIPE
    except OperationError as error:
        return _say(str(error), error.exit_code)
    except FlagshipError as error:
        return _say(str(error), OperationError.exit_code)
    except OSError as error:
        if error.filename is None and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF}:
            _forget_stdout()
            return _say(f"standard output: cannot be written: {error.strerror}", OperationError.exit_code)
        return _say(f"{error.filename or type(error).__name__}: {error.strerror or error}", OperationError.exit_code)
    except Exception as error:
        if os.environ.get("FLAGSHIP_TRACEBACK"):
            raise
        return _say(
            f"a mistake inside flagship ({type(error).__name__}: {error}); "
            "run it again with FLAGSHIP_TRACEBACK=1 and report what it says",
            OperationError.exit_code,
        )


def _load(name: str) -> Any:  # noqa: ANN401 - a click command
    module, _, attribute = NOUNS[name].place.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise OperationError(
            f"flagship {name} needs the package {error.name}, which is not installed here; "
            "install flagship[orchestrator]"
        ) from error
    if isinstance(found, typer.Typer):
        command = get_command(found)
    else:
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        alone.command(name)(found)
        command = get_command(alone)
    command.name = name
    return command


def _usage(error: refusals.ClickException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "flagship"
    sentence = error.format_message().rstrip(".").replace("Value error, ", "").replace("Input should be", "expected")
    return f"{sentence}; see '{path} --help'"


def _say(sentence: str, code: int) -> int:
    # A reason may hold what a device wrote: it must not reach the terminal as a control sequence.
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(sentence.split()))
    sys.stderr.write(f"flagship: {shown}\n")
    return code


def _forget_stdout() -> None:
    # Python flushes stdout once more at the end; the reader is gone.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
