"""``flagship release``: create (holds keys, works offline); publish, list, show, export (clients of ``serve``)."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import release_export
from orchestrator.cli.delta_progress import delta_progress
from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, cell, show_done, show_fields, show_rows
from orchestrator.cli.words import read_duration
from orchestrator.errors import UsageError
from orchestrator.package import PackageReader
from orchestrator.publisher.creating import Created, ReleaseSpec, create_release
from orchestrator.publisher.deltas import DELTA_LEVEL
from orchestrator.publisher.workspace import Workspace
from protocol.chunks import MAX_BASES
from protocol.identifiers import ReleaseName, check_id, check_version
from protocol.manifest import Policy
from protocol.numbers import MAX_COUNTER

if TYPE_CHECKING:
    from orchestrator.cli.client import ApiClient

app = typer.Typer(
    name="release",
    help="Make, publish and list releases.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

release_export.add_to(app)

COLUMNS = (
    "id",
    "component",
    "counter",
    "state",
    "chunks",
    "image_bytes",
    "chunk_bytes",
    "published_bytes",
    "imported_at",
)
MAX_HARDWARE = 256
PUBLISHER = "publisher"
"""The release keys inside a home; as ``orchestrator.config.Home`` names it."""


@app.command()
def create(
    source: Annotated[Path, typer.Argument(help="The directory or file to release.")],
    version: Annotated[str, typer.Option(help="Version, such as 1.1.0; each is signed once.")],
    hardware: Annotated[list[str], typer.Option(help="Hardware that it runs on; may be repeated.")],
    product: Annotated[str, typer.Option(help="Product; by default the one of the home's config.toml.")] = "",
    component: Annotated[str, typer.Option(help="The part of the device that it replaces.")] = "app",
    keys: Annotated[Path | None, typer.Option(help="Folder of the release keys; by default the home's.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The package to write.")] = None,
    counter: Annotated[
        int | None, typer.Option(min=0, max=MAX_COUNTER, help="Security counter: devices never go below it again.")
    ] = None,
    requires: Annotated[list[str] | None, typer.Option(help="COMPONENT=VERSION that must run already.")] = None,
    conflicts: Annotated[list[str] | None, typer.Option(help="COMPONENT=VERSION that must not run.")] = None,
    min_battery: Annotated[int | None, typer.Option(min=0, max=100, help="Least charge in percent.")] = None,
    require_approval: Annotated[bool, typer.Option(help="A person at the device must agree.")] = False,
    allow_in_use: Annotated[bool | None, typer.Option(help="Whether installing may interrupt use.")] = None,
    require_way_back: Annotated[bool, typer.Option(help="The former version must be intact.")] = False,
    min_interval: Annotated[
        str, typer.Option(help="Least time between two updates of one device, such as 1h: no order makes it shorter.")
    ] = "",
    must_pass_through: Annotated[bool, typer.Option(help="No device may skip this version.")] = False,
    dedup: Annotated[bool, typer.Option(help="Share chunks with other releases of these keys.")] = True,
    delta_from: Annotated[
        list[Path] | None,
        typer.Option(help=f"A former version, directory or file, to make deltas against; at most {MAX_BASES}."),
    ] = None,
    delta_level: Annotated[
        int, typer.Option(min=1, max=22, help="zstd level of deltas: 12 is five times as fast and 13 % larger.")
    ] = DELTA_LEVEL,
    home: HomeOption = HERE,
) -> None:
    """Pack, seal and sign a directory or file into one package. Needs the release keys, no orchestrator."""
    with _usage():
        name = ReleaseName(check_id(product or _product_of(home), "product"), check_version(version))
        spec = ReleaseSpec(
            name=name,
            component=check_id(component, "component"),
            hardware=_hardware(hardware),
            requires=_pairs("--requires", requires),
            conflicts=_pairs("--conflicts", conflicts),
            policy=Policy(
                min_battery_percent=min_battery,
                require_approval=require_approval or None,
                allow_in_use=allow_in_use,
                require_way_back=require_way_back or None,
                min_interval_s=int(read_duration(min_interval, "--min-interval")) if min_interval else None,
            ),
            counter=counter,
            must_pass_through=must_pass_through,
            dedup=dedup,
            delta_from=_bases(delta_from),
            delta_level=delta_level,
        )
    target = output or Path(f"{name.product}-{name.version}.package")
    workspace = Workspace(keys or home / PUBLISHER)
    with delta_progress() as progress:
        created = create_release(source, target, spec, workspace, datetime.now(UTC), progress)
    _print_created(created)


@app.command()
def publish(
    package: Annotated[Path, typer.Argument(help="What 'flagship release create' wrote.")],
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Hand a package to serve, which checks it as a device would and publishes its chunks."""
    with PackageReader(package) as reader:
        name = ReleaseName(reader.header.product, reader.header.version)
    release = _client(home).upload("/releases", package)
    sent = release.get("published_bytes", 0)
    late = "".join(f"; not on {broker} yet: {cell(why)}" for broker, why in release.get("behind", {}).items())
    said = f"published {name}: {_size(sent)} sent to the broker and read back{late}"
    show_done("\n".join([said, *_mirrors_only(release)]), release, output)


@app.command("list")
def list_releases(output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """List releases."""
    rows = _client(home).pages("/releases")
    shown = rows if output is Format.JSON else ({**row, "chunks": _chunks(row)} for row in rows)
    show_rows(COLUMNS, shown, output)


@app.command()
def show(
    release: Annotated[str, typer.Argument(help="PRODUCT/VERSION.")],
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Show one release."""
    with _usage():
        name = ReleaseName.parse(release)
    show_fields(_client(home).get(f"/releases/{name.product}/{name.version}"), output)


def _chunks(release: dict[str, Any]) -> str:
    """Where a release's chunks stand, in a word a broker: ``held``, ``mirrors-only``, ``cleared`` ..."""
    brokers = release.get("brokers", [])
    words = {row["chunks"] for row in brokers}
    return words.pop() if len(words) == 1 else ", ".join(f"{row['broker']} {row['chunks']}" for row in brokers)


def _mirrors_only(release: dict[str, Any]) -> list[str]:
    return [
        f"mirrors-only on broker {row['broker']}: {_size(row['missing_bytes'])} did not fit: {row['why']}"
        for row in release.get("brokers", [])
        if row["chunks"] == "mirrors-only"
    ]


def _print_created(created: Created) -> None:
    packed, info = created.packed, created.info
    image, chunks = _size(packed.artifact.length), _size(packed.chunk_bytes)
    typer.echo(f"created {info.product}/{info.version} as {created.path}")
    typer.echo(f"  {len(packed.artifact.files)} files, {image}, in {packed.distinct_chunks} chunks of {chunks}")
    if packed.delta_chunks:
        typer.echo(f"  {packed.delta_chunks} deltas of {_size(packed.delta_bytes)}")
    typer.echo(f"  security counter {info.counter}, sha256 {created.sha256}")
    if packed.empty_folders:
        typer.echo(f"  not carried: {len(packed.empty_folders)} folders without files")


def _client(home: Path) -> "ApiClient":
    # Imported here, as in _product_of: a publisher's machine has neither httpx nor pydantic-settings.
    from orchestrator.cli.client import ApiClient

    return ApiClient(home)


def _product_of(home: Path) -> str:
    from orchestrator.config import Home

    return Home(home).load().product


def _hardware(names: list[str]) -> tuple[str, ...]:
    if len(names) > MAX_HARDWARE:
        raise UsageError(f"--hardware: expected at most {MAX_HARDWARE}, found {len(names)}")
    return tuple(dict.fromkeys(check_id(name, "hardware") for name in names))


def _bases(paths: list[Path] | None) -> tuple[Path, ...]:
    if paths and len(paths) > MAX_BASES:
        raise UsageError(f"--delta-from: expected at most {MAX_BASES}, found {len(paths)}")
    return tuple(paths or ())


def _pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts or ():
        component, equals, version = text.partition("=")
        if not equals or component in pairs:
            raise UsageError(f"{option} {text[:80]!r}: expected COMPONENT=VERSION, each component once")
        pairs[check_id(component, "component")] = check_version(version)
    return pairs


@contextmanager
def _usage() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes} B"
