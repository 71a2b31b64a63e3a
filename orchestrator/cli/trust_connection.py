"""``flagship trust connection``: sign the brokers, the CA and the mirrors that devices use from now on."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from orchestrator.cli.output import HERE, HomeOption
from orchestrator.errors import UsageError
from orchestrator.publisher.connection import next_connection, present_connection, read_ca, sign_connection
from orchestrator.publisher.signing import load_repository
from orchestrator.publisher.workspace import Workspace
from protocol.enrolment import BrokerAddress, MirrorAddress

PUBLISHER = "publisher"


def add_to(app: typer.Typer) -> None:
    """Make this command part of ``flagship trust``."""
    app.command()(connection)


def connection(
    broker: Annotated[
        list[str] | None, typer.Option(metavar="HOST:PORT", help="Where devices reach a broker; may be repeated.")
    ] = None,
    ca: Annotated[Path | None, typer.Option(metavar="FILE", help="CAs of brokers and devices, PEM.")] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option(metavar="URL[=system]", help="HTTPS mirror by the fleet's CA, or by any; may be repeated."),
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="The release keys folder (HOME/publisher).")] = None,
    home: HomeOption = HERE,
) -> None:
    """Sign brokers, CA and mirrors with the keys of targets and snapshot, or show the last. Works offline."""
    workspace = Workspace(keys or home / PUBLISHER)
    loaded, now = workspace.load(), datetime.now(UTC)
    repository = load_repository(loaded.metadata, now)
    if not broker and ca is None and not mirror:
        target = present_connection(repository)
        typer.echo(target.model_dump_json(indent=1) if target else "no connection was signed; devices use enrolment's")
        return
    if not broker or ca is None:
        raise UsageError("trust connection: --broker and --ca belong together; a device needs both to connect")
    brokers, mirrors = [_address(text) for text in broker], [_mirror(text) for text in mirror or ()]
    target = next_connection(repository, brokers, read_ca(ca), mirrors)
    workspace.store(sign_connection(repository, target, loaded.signers, now))
    named = ", ".join([*broker, *(one.url for one in mirrors)])
    typer.echo(f"connection {target.version} signed: {named}; it goes out with the next publish")


def _address(text: str) -> BrokerAddress:
    host, _, port = text.rpartition(":")
    try:
        return BrokerAddress(host=host.strip("[]"), port=int(port))
    except (ValidationError, ValueError) as error:
        raise UsageError(f"--broker {text[:80]!r}: expected HOST:PORT, such as broker.example:8883") from error


def _mirror(text: str) -> MirrorAddress:
    url, _, ca = text.partition("=")
    try:
        return MirrorAddress.model_validate({"url": url, "ca": ca or "fleet"})
    except ValidationError as error:
        raise UsageError(
            f"--mirror {text[:80]!r}: expected https://HOST[:PORT][/PATH], with =system where its certificate is by "
            "another CA than the fleet's"
        ) from error
