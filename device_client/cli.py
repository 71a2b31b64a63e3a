"""``flagship-device``: enrol this device, run its agent, answer for the person who stands before it.

Exit codes are those of every Flagship command (design, section 10). Errors are one sentence on stderr.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from device_client import cli_inhibit, cli_medium, cli_run, cli_status, cli_verify, identity
from device_client.cli_claim import add_claim_options, enrol_under_claim, read_label
from device_client.config import DeviceHome, DeviceSettings, load, settings_from, write
from device_client.durable import write_durably
from device_client.errors import ConflictError, UsageError
from device_client.installers.making import make_installer
from device_client.local_socket import request
from device_client.systemd import watchdog
from protocol.errors import FlagshipError
from protocol.identifiers import check_version

INTERRUPTED = 130
BROKEN_PIPE = 141
DEFAULT_HOME = Path("/var/lib/flagship")


class _Words(argparse.ArgumentParser):
    """Refuses in one sentence, as every other command does."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see '{self.prog} --help'")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the console script's entry."""
    try:
        if sys.stdout is None:
            raise UsageError("standard output is closed; open it, or send it to /dev/null")
        options = _parser().parse_args(arguments)
        options.run(options)
        sys.stdout.flush()
    except FlagshipError as error:
        print(f"flagship-device: {' '.join(str(error).split())}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    except BrokenPipeError:
        _forget_stdout()
        return BROKEN_PIPE
    except OSError as error:
        if error.filename is None:
            _forget_stdout()
        print(f"flagship-device: {error.filename or 'standard output'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _forget_stdout() -> None:
    # Python flushes stdout once more at the end, where nobody catches what goes wrong.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _parser() -> argparse.ArgumentParser:
    parser = _Words(prog="flagship-device", description="The update agent of one device.")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    enrol = verbs.add_parser("enrol", help="make keys and a request, or accept the answer")
    _home(enrol)
    enrol.add_argument("--id", help="this device's id: letters, digits, '_' and '-'")
    enrol.add_argument("--product", help="what it is")
    enrol.add_argument("--hardware", help="which hardware releases must be made for")
    enrol.add_argument("--component", help="what the installer updates (app)")
    enrol.add_argument("--label", action="append", default=[], metavar="KEY=VALUE", help="may be repeated")
    enrol.add_argument("--health", metavar="PROGRAM", help="ends with 0 when a new version works")
    enrol.add_argument("--installed", type=Path, metavar="DIR", help="what the device left the factory with")
    enrol.add_argument("--version", help="the version of --installed")
    enrol.add_argument("-o", "--output", type=Path, help="where the request goes (HOME/request.json)")
    enrol.add_argument("--accept", type=Path, metavar="FILE", help="the answers of 'flagship device enrol'")
    add_claim_options(enrol)
    enrol.set_defaults(run=_enrol)

    cli_run.add_to(verbs, DEFAULT_HOME)
    for command in (cli_status, cli_verify, cli_medium):
        command.add_to(verbs, _home)
    watchdog.add_to(verbs)
    for verb, what in (("approve", "agree to"), ("decline", "refuse"), ("defer", "put off")):
        answer = verbs.add_parser(verb, help=f"{what} the update that waits for a person")
        _home(answer)
        answer.add_argument("rollout", nargs="?", help="the open one, if not named")
        answer.add_argument("--phase", choices=("install", "activate"), default="install", help="of it (install)")
        if verb == "defer":
            answer.add_argument("--seconds", type=float, default=3600.0, help="for how long (3600)")
        answer.set_defaults(run=_decide, verb=verb)

    cli_inhibit.add_to(verbs, _home)
    return parser


def _home(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get("FLAGSHIP_DEVICE_HOME", DEFAULT_HOME)),
        help="the device's home ($FLAGSHIP_DEVICE_HOME, or /var/lib/flagship)",
    )


def _enrol(options: argparse.Namespace) -> None:
    home = DeviceHome(options.home)
    if options.accept:
        enrolment = identity.accept(home, options.accept)
        print(f"device {enrolment.device} belongs to fleet {enrolment.fleet}; start it with 'flagship-device run'")
        return
    if options.claim:
        _check_installed(options)
        said = enrol_under_claim(home, options)
        if options.installed:
            make_installer(home, load(home.config)[1]).install_factory(options.installed, options.version)
        print(said)
        return
    settings = _settings(home, options)
    request_file = options.output or home.path / "request.json"
    _check_installed(options)
    with _whole_or_not_at_all(home):
        identity.make_keys(home)
        if not home.config.exists():
            write(home, settings)
        if options.installed:
            make_installer(home, settings).install_factory(options.installed, options.version)
        text = identity.make_request(home, settings).model_dump_json(indent=1)
        write_durably(request_file, text.encode() + b"\n", 0o644)
    print(f"{request_file}: carry it to 'flagship device enrol', then 'flagship-device enrol --accept FILE'")


@contextmanager
def _whole_or_not_at_all(home: DeviceHome) -> Iterator[None]:
    """A new home that does not come about is removed: the corrected command starts afresh. No one has its keys yet."""
    is_new = not os.path.lexists(home.path)
    try:
        yield
    except BaseException:
        if is_new:
            shutil.rmtree(home.path, ignore_errors=True)
        raise


def _check_installed(options: argparse.Namespace) -> None:
    if (options.installed is None) != (options.version is None):
        raise UsageError("enrol: --installed DIR and --version V belong together")
    if options.installed:
        try:
            check_version(options.version)
        except ValueError as error:
            raise UsageError(f"enrol: {error}") from error


def _settings(home: DeviceHome, options: argparse.Namespace) -> DeviceSettings:
    named = (options.id, options.product, options.hardware)
    if home.config.exists():
        _, settings = load(home.config)
        if options.id not in (None, settings.device.id):
            raise ConflictError(f"{home.path}: is the home of device {settings.device.id}, not of {options.id}")
        _check_same(home, settings, options)
        return settings
    if None in named:
        raise UsageError("enrol: a new device needs --id, --product and --hardware")
    labels = dict(read_label(text) for text in options.label)
    device = {"id": options.id, "product": options.product, "hardware": options.hardware}
    if options.component:
        device["component"] = options.component
    installer = {"health": [options.health]} if options.health else {}
    values = {"device": device | {"labels": labels}, "installer": installer}
    return settings_from(values, "enrol")


def _check_same(home: DeviceHome, settings: DeviceSettings, options: argparse.Namespace) -> None:
    """What device.toml says stays; words that say something else are not quietly dropped."""
    device = settings.device
    for name in ("product", "hardware", "component"):
        asked, kept = getattr(options, name), getattr(device, name)
        if asked not in {None, kept}:
            raise ConflictError(f"{home.config}: says {name} {kept}, not {asked}; change it there and enrol again")
    for key, value in map(read_label, options.label):
        if device.labels.get(key) != value:
            raise ConflictError(f"{home.config}: has no label {key}={value}; add it there and enrol again")
    if options.health and settings.installer.health != [options.health]:
        raise ConflictError(f"{home.config}: names another health check than {options.health}; change it there")


def _decide(options: argparse.Namespace) -> None:
    home, _ = load(options.home)
    extra = {"seconds": options.seconds} if options.verb == "defer" else {}
    answer = request(home.socket, options.verb, rollout=options.rollout, phase=options.phase, **extra)
    print(f"{options.verb}: {answer['phase']} of rollout {answer['rollout']}, by {answer['who']}")


if __name__ == "__main__":
    sys.exit(main())
