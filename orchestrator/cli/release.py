"""``flagship release``: create (holds keys, works offline), publish, list, show (clients of ``flagship serve``)."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Column, Table

from orchestrator import errors
from orchestrator.config import Home
from orchestrator.errors import NotFoundError, OperationError, TimedOutError, UnreachableError, UsageError
from orchestrator.package import PackageReader
from orchestrator.publisher.creating import Created, ReleaseSpec, create_release
from orchestrator.publisher.workspace import Workspace
from protocol.identifiers import ReleaseName, check_id, check_version
from protocol.manifest import Policy

app = typer.Typer(name="release", help="Create, publish and look at releases.", no_args_is_help=True)

BLOCK_BYTES = 2**18
CONNECT_S = 5.0
ANSWER_S = 60.0
PUBLISH_S = 3600.0
"""Serve answers when every chunk was read back from the broker."""
MAX_HARDWARE = 256


class Format(StrEnum):
    """How a command answers."""

    TABLE = "table"
    JSON = "json"


HomeOption = Annotated[Path, typer.Option("--home", envvar="FLAGSHIP_HOME", help="The fleet's home.")]
FormatOption = Annotated[Format, typer.Option("-o", "--output", help="How to answer.")]


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
        int | None, typer.Option(min=0, help="Security counter: devices never go below it again.")
    ] = None,
    requires: Annotated[list[str] | None, typer.Option(help="COMPONENT=VERSION that must run already.")] = None,
    conflicts: Annotated[list[str] | None, typer.Option(help="COMPONENT=VERSION that must not run.")] = None,
    min_battery: Annotated[int | None, typer.Option(min=0, max=100, help="Least charge in percent.")] = None,
    require_approval: Annotated[bool, typer.Option(help="A person at the device must agree.")] = False,
    allow_in_use: Annotated[bool | None, typer.Option(help="Whether installing may interrupt use.")] = None,
    require_way_back: Annotated[bool, typer.Option(help="The former version must be intact.")] = False,
    must_pass_through: Annotated[bool, typer.Option(help="No device may skip this version.")] = False,
    dedup: Annotated[bool, typer.Option(help="Share chunks with other releases of these keys.")] = True,
    home: HomeOption = Path(),
) -> None:
    """Pack, seal and sign a directory or file into one package. Needs the release keys, no orchestrator."""
    place = Home(home)
    with _usage():
        name = ReleaseName(check_id(product or place.load().product, "product"), check_version(version))
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
            ),
            counter=counter,
            must_pass_through=must_pass_through,
            dedup=dedup,
        )
    target = output or Path(f"{name.product}-{name.version}.package")
    workspace = Workspace(keys or place.publisher)
    _print_created(create_release(source, target, spec, workspace, datetime.now(UTC)))


@app.command()
def publish(
    package: Annotated[Path, typer.Argument(help="What 'flagship release create' wrote.")],
    output: FormatOption = Format.TABLE,
    home: HomeOption = Path(),
) -> None:
    """Hand a package to serve, which checks it as a device would and publishes its chunks."""
    with PackageReader(package) as reader:
        name = ReleaseName(reader.header.product, reader.header.version)
    release = _call(home, "POST", "/releases", PUBLISH_S, content=_blocks(package), length=package.stat().st_size)
    if output is Format.JSON:
        _print_json(release)
    else:
        sent = release.get("published_bytes")
        Console().print(f"published {name}" + (f", {sent} B sent to the broker" if isinstance(sent, int) else ""))


@app.command("list")
def list_releases(output: FormatOption = Format.TABLE, home: HomeOption = Path()) -> None:
    """List releases."""
    answer = _call(home, "GET", "/releases", ANSWER_S)
    releases = answer if isinstance(answer, list) else answer.get("items", answer.get("releases", []))
    if output is Format.JSON:
        _print_json(releases)
        return
    table = Table(Column("release", overflow="fold"), "component", "counter", "state", "image", "chunks", box=None)
    for row in releases:
        table.add_row(
            str(row["id"]),
            str(row["component"]),
            str(row["counter"]),
            str(row["state"]),
            _size(row["image_bytes"]),
            _size(row["chunk_bytes"]),
        )
    Console().print(table)


@app.command()
def show(
    release: Annotated[str, typer.Argument(help="PRODUCT/VERSION.")],
    output: FormatOption = Format.TABLE,
    home: HomeOption = Path(),
) -> None:
    """Show one release."""
    with _usage():
        name = ReleaseName.parse(release)
    answer = _call(home, "GET", f"/releases/{name.product}/{name.version}", ANSWER_S)
    if output is Format.JSON:
        _print_json(answer)
        return
    table = Table(show_header=False, box=None)
    for key, value in answer.items():
        table.add_row(key, json.dumps(value) if isinstance(value, dict | list) else str(value))
    Console().print(table)


def _print_created(created: Created) -> None:
    packed, info = created.packed, created.info
    image, chunks = _size(packed.artifact.length), _size(packed.chunk_bytes)
    print_line = Console(highlight=False, soft_wrap=True).print
    print_line(f"created {info.product}/{info.version} as {created.path}")
    print_line(f"  {len(packed.artifact.files)} files, {image}, in {info.chunk_count} chunks of {chunks}")
    print_line(f"  security counter {info.counter}, sha256 {created.sha256}")
    if packed.empty_folders:
        print_line(f"  not carried: {len(packed.empty_folders)} folders without files")


def _call(
    home: Path, method: str, path: str, timeout_s: float, *, content: Iterator[bytes] | None = None, length: int = 0
) -> Any:  # noqa: ANN401 - what JSON holds
    place = Home(home)
    settings = place.load()
    headers = {"Authorization": f"Bearer {_token(place)}"}
    if content is not None:
        headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
    url = f"http://{settings.api.host}:{settings.api.port}/api/v1{path}"
    try:
        answer = httpx.request(
            method,
            url,
            content=content,
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_S),
            trust_env=False,
        )
    except httpx.TimeoutException as error:
        raise TimedOutError(f"serve: no answer from {url} within {timeout_s:g} s; see what it logged") from error
    except httpx.HTTPError as error:
        raise UnreachableError(
            f"serve: does not answer at {url}; start it with 'flagship serve --home {home}'"
        ) from error
    if answer.is_success:
        return answer.json()
    raise _refusal(answer)


def _refusal(answer: httpx.Response) -> OperationError:
    try:
        problem = answer.json()
        detail, code = str(problem["detail"]), int(problem.get("exit_code", 1))
    except (ValueError, KeyError, TypeError, AttributeError):
        return OperationError(f"serve: answered {answer.status_code} without a reason; see what it logged")
    kinds: Mapping[int, type[OperationError]] = {
        kind.exit_code: kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, OperationError)
    }
    return kinds.get(code, OperationError)(detail)


def _token(home: Home) -> str:
    try:
        return home.admin_token.read_text().strip()
    except FileNotFoundError as error:
        raise NotFoundError(f"{home.admin_token}: the admin token is missing; restore it") from error
    except OSError as error:
        raise OperationError(f"{home.admin_token}: cannot be read: {error.strerror}") from error


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def _hardware(names: list[str]) -> tuple[str, ...]:
    if len(names) > MAX_HARDWARE:
        raise UsageError(f"--hardware: expected at most {MAX_HARDWARE}, found {len(names)}")
    return tuple(dict.fromkeys(check_id(name, "hardware") for name in names))


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


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value))
