"""``flagship rollout offline``: a medium by which devices without a link update, and act unasked until a time.

The orders come from serve; chunks and trust from the home itself, as in ``flagship release export``. So it runs where
the home is.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, show_done
from orchestrator.cli.words import read_duration, read_id, read_ids
from orchestrator.errors import NotAllowedError, NotFoundError, OperationError, UsageError

ANNOUNCE, OFFER = "announce", "offer"


def add_to(app: typer.Typer) -> None:
    """Make this command part of ``flagship rollout``."""
    app.command()(offline)


def offline(
    rollout: Annotated[str, typer.Argument(help="The rollout's id, such as r-1; it must be running.")],
    device: Annotated[list[str], typer.Argument(help="Members of it, whose stage has begun.")],
    to: Annotated[Path, typer.Option(metavar="DIR", help="The medium, as it is mounted here.")],
    until: Annotated[str, typer.Option(help="How long the devices may act unasked: 12h, 7d, 30d.")] = "7d",
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Make a medium for devices without a link. A later halt or abort does not reach them there."""
    from orchestrator.cli.client import ApiClient
    from orchestrator.config import Home
    from orchestrator.releases.exporting import export_chunks, export_trust
    from orchestrator.storage.chunk_store import ChunkStore

    name, devices = read_id(rollout, "rollout id"), read_ids(device, "device id")
    life_s = read_duration(until, "--until")
    if life_s == 0:
        raise UsageError("--until 0: expected a time above 0")
    place, client = Home(home), ApiClient(home)
    if not place.chunks.is_dir():
        raise NotFoundError(f"{place.chunks}: no chunks here; run this on the machine that serve runs on")
    if to.resolve().is_relative_to(place.path.resolve()):
        raise NotAllowedError(f"{to}: lies inside the home; name a folder outside of it")
    # Chunks and trust first: orders that are signed cannot be called back, a full disk should have said so before.
    release = client.get(f"/rollouts/{name}")["release"]
    chunks = {row["cid"]: row["length"] for row in client.pages(f"/releases/{release}/chunks")}
    done = export_chunks(ChunkStore(place.chunks), chunks, to, lambda _size: None)
    export_trust(place.trust, to)
    made = client.post(f"/rollouts/{name}/offline", {"devices": devices, "life_s": life_s})
    _write_orders(to, made)
    fields = {
        "rollout": made["rollout"],
        "release": made["release"],
        "devices": sorted(made["offers"]),
        "until": made["until"],
        "bring_by": _bring_by(to),
        "chunks": len(chunks),
        "written_bytes": done.written_bytes,
    }
    show_done(_said(to, fields), fields, output)


def _write_orders(directory: Path, made: dict[str, Any]) -> None:
    """The announcement, then the offers: whoever finds an offer finds what it needs."""
    from orchestrator.durable import replace_durably

    files = {Path(ANNOUNCE) / f"{made['rollout']}.json": made["announcement"]}
    files |= {Path(OFFER) / device / f"{made['rollout']}.json": text for device, text in made["offers"].items()}
    for name, text in files.items():
        with _explained(directory / name):
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            replace_durably(directory / name, text.encode())


def _bring_by(directory: Path) -> str:
    """When the trust on the medium runs out: a device takes no medium in after that."""
    from orchestrator.delivery.trust_topics import read_timestamp
    from protocol.clock import rfc3339

    return rfc3339(read_timestamp(directory / "trust").expires)


def _said(to: Path, fields: dict[str, Any]) -> str:
    who = f"{len(fields['devices'])} device{'s' if len(fields['devices']) > 1 else ''}"
    return (
        f"rollout {fields['rollout']} on {to}: {fields['release']} for {who}, who may act unasked until "
        f"{fields['until']}\n"
        f"  hand it in by {fields['bring_by']}, when the trust on it runs out; 'flagship release export {to} "
        f"{fields['release']}' renews that\n"
        "  a halt or an abort from now on does not reach them before they have a link"
    )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise NotAllowedError(f"{path}: this user may not write there; name another folder") from error
    except OSError as error:
        raise OperationError(f"{path}: cannot be written: {error.strerror or error}; make the medium anew") from error
