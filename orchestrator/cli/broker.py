"""``flagship broker``: how the fleet's brokers stand, and is a broker fit to carry a fleet's content?"""

import contextlib
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.broker_check.figures import Figures, Finding, Verdict
from orchestrator.broker_check.identities import passing_device
from orchestrator.broker_check.judging import best_qos, best_window, judge, overall
from orchestrator.broker_check.probe_client import Access
from orchestrator.broker_check.probing import Bounds, check_broker
from orchestrator.cli.client import ApiClient
from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, show_json, show_rows
from orchestrator.config import Home, Settings
from orchestrator.delivery.broker_access import service_connection
from orchestrator.errors import NotFoundError, OperationError, UsageError
from protocol.topics import DELIVERY, Topics

WAITS = 7
app = typer.Typer(
    name="broker",
    help="See how brokers stand, and whether one is fit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _noun() -> None:
    """See how brokers stand, and whether one is fit."""


@app.command("list")
def list_brokers(output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """List the fleet's brokers: reached or not, what each does not have yet, and why; exit code 7 if one is behind."""
    found = ApiClient(home).get("/status")["brokers"]
    show_rows(("name", "connected", "topics", "releases", "why"), found, output)
    if any(not broker["connected"] or broker["releases"] for broker in found):
        raise typer.Exit(WAITS)


@app.command()
def check(
    broker: Annotated[str, typer.Argument(help="Its name in config.toml; by default the first.")] = "",
    host: Annotated[str, typer.Option(help="Another broker than the home's; needs the options below.")] = "",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where it listens for services.")] = 8884,
    device_port: Annotated[int, typer.Option(min=1, max=65535, help="Where it listens for devices.")] = 8883,
    ca: Annotated[Path | None, typer.Option(help="What its certificate must chain to.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="Of the identity that publishes chunks.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    device_certificate: Annotated[Path | None, typer.Option(help="Of a device, to prove the access list.")] = None,
    device_key: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    timeout: Annotated[float, typer.Option(min=5, max=3600, help="Seconds for all probes together.")] = 120.0,
    megabytes: Annotated[int, typer.Option(min=4, max=1024, help="The most that is retained for the check.")] = 64,
    topics: Annotated[int, typer.Option(min=100, max=10_000, help="Retained topics to look up among.")] = 1000,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Probe a broker: exit code 0 fit (perhaps with limits), 1 unfit, 9 not reached. What it publishes is cleared."""
    place = Home(home)
    settings = _of_broker(place.load(), broker)
    delivery = _delivery(place, settings, (host, port), ca, certificate, key)
    bounds = Bounds(timeout_s=timeout, most_bytes=megabytes * 2**20, others=topics)
    given = _pair("--device-certificate", device_certificate, "--device-key", device_key)
    name = f"probe-{secrets.token_hex(4)}"
    with contextlib.nullcontext(given) if given or host else passing_device(place.ca, name) as files:
        address = (host, device_port) if host else (delivery.host, settings.broker.device_port)
        device = Access(*address, name, delivery.ca, *files) if files else None
        figures = check_broker(Topics(settings.fleet), delivery, device, bounds, _say)
    _show(figures, judge(figures), output)


def _of_broker(settings: Settings, name: str) -> Settings:
    """The settings as the named broker sees them."""
    found = [broker for broker in settings.all_brokers if not name or broker.name == name]
    if not found:
        known = ", ".join(broker.name for broker in settings.all_brokers)
        raise NotFoundError(f"broker {name}: not in config.toml, which has {known}")
    return settings.for_broker(found[0])


def _delivery(
    home: Home,
    settings: Settings,
    address: tuple[str, int],
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
) -> Access:
    """The publishing identity: the home's own towards the home's broker, or what was named."""
    own = service_connection(home, settings, DELIVERY, purpose="check")
    pair = _pair("--certificate", certificate, "--key", key) or (own.certificate, own.key)
    host, port = address if address[0] else (own.host, own.port)
    return Access(host, port, own.client_id, ca or own.ca, *pair)


def _pair(first: str, certificate: Path | None, second: str, key: Path | None) -> tuple[Path, Path] | None:
    if (certificate is None) != (key is None):
        raise UsageError(f"{first} and {second} come together; name both or neither")
    return (certificate, key) if certificate and key else None


def _say(what: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{what} ..." if what != "clearing" else "\r\x1b[K")
        sys.stderr.flush()


def _show(figures: Figures, findings: list[Finding], output: Format) -> None:
    verdict = overall(findings)
    rows = [
        {
            "probe": one.probe,
            "verdict": one.verdict.value,
            "figure": one.figure,
            "limit": one.limit,
            "to do": one.advice,
        }
        for one in findings
    ]
    window, qos = best_window(figures), best_qos(figures)
    if output is Format.JSON:
        show_json(
            {"verdict": verdict.value, "window": window, "qos": qos, "skipped": figures.skipped, "findings": rows}
        )
    else:
        show_rows(("probe", "verdict", "figure", "limit", "to do"), rows, output)
        if figures.skipped:
            typer.echo(f"not all was probed: {figures.skipped}")
        typer.echo(f"{verdict.value}: windows of at most {window} chunks, QoS {qos}")
    if verdict is Verdict.UNFIT:
        raise typer.Exit(OperationError.exit_code)
