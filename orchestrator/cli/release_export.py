"""``flagship release export``: a tree that any web server, cache or USB stick can hold.

Which chunks there are, serve says; the bytes come straight from the home's chunk store, which this command only reads:
through the API, gigabytes would take the orchestrator's time. So it runs where the home is.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, console, show_done
from orchestrator.cli.words import read_release
from orchestrator.errors import ConflictError, NotAllowedError, NotFoundError

PUBLISHED = "published"


def add_to(app: typer.Typer) -> None:
    """Make this command part of ``flagship release``."""
    app.command()(export)


def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where chunks/ and trust/ are written.")],
    release: Annotated[list[str] | None, typer.Argument(help="PRODUCT/VERSION ...; by default all published.")] = None,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Write DIR/chunks/{id} and DIR/trust/ for mirrors, caches and media. What is there and whole is kept."""
    from orchestrator.cli.client import ApiClient
    from orchestrator.config import Home
    from orchestrator.releases.exporting import export_chunks, export_trust
    from orchestrator.storage.chunk_store import ChunkStore

    place, client = Home(home), ApiClient(home)
    if not place.chunks.is_dir():
        raise NotFoundError(f"{place.chunks}: no chunks here; run this on the machine that serve runs on")
    if directory.resolve().is_relative_to(place.path.resolve()):
        raise NotAllowedError(f"{directory}: lies inside the home; name a folder outside of it")
    names = _published(client, release or [])
    chunks = {row["cid"]: row["length"] for name in names for row in client.pages(f"/releases/{name}/chunks")}
    with _progress(sum(chunks.values()), shown=output is Format.TABLE) as advance:
        done = export_chunks(ChunkStore(place.chunks), chunks, directory, advance)
    files = export_trust(place.trust, directory)
    fields = {
        "releases": names,
        "chunks": len(chunks),
        "chunk_bytes": sum(chunks.values()),
        "written": done.written,
        "written_bytes": done.written_bytes,
        "kept": done.kept,
        "trust": files,
    }
    show_done(
        f"exported {len(names)} releases to {directory}: {done.written} chunks ({done.written_bytes / 1e6:.1f} MB) "
        f"written, {done.kept} were there, {len(files)} trust files",
        fields,
        output,
    )


def _published(client: Any, asked: Sequence[str]) -> list[str]:  # noqa: ANN401 - ApiClient is imported late
    """The releases that were asked for, or all that are published."""
    if not asked:
        return [row["id"] for row in client.pages("/releases") if row["state"] == PUBLISHED]
    names = list(dict.fromkeys(str(read_release(text)) for text in asked))
    for name in names:
        state = client.get(f"/releases/{name}")["state"]
        if state != PUBLISHED:
            raise ConflictError(f"release {name}: is {state}, expected {PUBLISHED}; only what is published is exported")
    return names


@contextlib.contextmanager
def _progress(total_bytes: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; elsewhere nothing."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("exporting"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    screen = console()
    with Progress(*columns, console=screen, disable=not (shown and screen.is_terminal), transient=True) as bar:
        task = bar.add_task("", total=total_bytes)
        yield lambda size_bytes: bar.advance(task, size_bytes)
