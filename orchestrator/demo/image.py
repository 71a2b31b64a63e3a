"""Three versions of an image: what the devices leave the factory with, a good update, a bad one. Blocking.

The image carries its own self-test, as a maker's would: a shell script that reads the image's settings. Version 1.2.0
ships settings that do not pass it.
"""

import shutil
import stat
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import NotFoundError, UsageError
from protocol.chunks import AVERAGE_CHUNK_BYTES

FACTORY, GOOD, BAD = "1.0.0", "1.1.0", "1.2.0"
SETTINGS = "flagship-demo/settings.conf"
SELFTEST = "flagship-demo/selftest.sh"
CHANGED_EVERY = 20
LEFT_OUT = frozenset({"__pycache__", "site-packages", "dist-packages", "test", "tests"})
MAX_IMAGE_BYTES = 2 * 2**30

_SELFTEST = """#!/bin/sh
# Ends with 0 when this image can work: its settings name at least one worker.
workers=$(sed -n 's/^workers=//p' "$FLAGSHIP_RELEASE/flagship-demo/settings.conf")
case "$workers" in
    [1-9]|[1-9][0-9]) echo "self-test of $FLAGSHIP_VERSION: $workers workers" ;;
    *) echo "self-test of $FLAGSHIP_VERSION: settings.conf: workers is '$workers', expected 1 to 99"; exit 1 ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Images:
    """Where the three versions lie.

    Attributes:
        length: Bytes of the good one.
        changed: Bytes of it in or near files that changed: about what a device fetches, for it copies the rest.
    """

    factory: Path
    good: Path
    bad: Path
    length: int
    changed: int


def make_images(source: Path | None, place: Path) -> Images:
    """Copy ``source``, or this machine's Python standard library, and change some files for each version.

    Raises:
        NotFoundError: ``source`` is no directory.
        UsageError: It holds no regular file, or too much.
    """
    if source is not None and not source.is_dir():
        raise NotFoundError(f"--image {source}: no such directory")
    tree = source or Path(sysconfig.get_paths()["stdlib"])
    factory, good, bad = place / FACTORY, place / GOOD, place / BAD
    _copy_regular(tree, factory, everything=source is not None)
    (factory / SELFTEST).parent.mkdir(parents=True, exist_ok=True)
    (factory / SELFTEST).write_text(_SELFTEST)
    (factory / SELFTEST).chmod(0o755)
    (factory / SETTINGS).write_text("workers=2\n")
    shutil.copytree(factory, good)
    changed = _change(good, GOOD, 0)
    (good / SETTINGS).write_text("workers=4\n")
    shutil.copytree(good, bad)
    _change(bad, BAD, 7)
    (bad / SETTINGS).write_text("workers=four\n")
    return Images(factory, good, bad, sum(path.stat().st_size for path in _files(good)), changed)


def _copy_regular(tree: Path, target: Path, *, everything: bool) -> None:
    total = 0
    for path in _files(tree):
        parts = path.relative_to(tree).parts
        if not everything and (LEFT_OUT & set(parts) or parts[0].startswith("config-")):
            continue
        total += path.stat().st_size
        if total > MAX_IMAGE_BYTES:
            raise UsageError(f"--image {tree}: more than {MAX_IMAGE_BYTES} B; the demo copies it for every device")
        copy = target.joinpath(*parts)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
    if not total:
        raise UsageError(f"--image {tree}: no regular file with content in it")


def _change(tree: Path, version: str, first: int) -> int:
    changed = 0
    for path in _files(tree)[first::CHANGED_EVERY]:
        if path.suffix in ("", ".py", ".txt", ".rst") and path.name not in (Path(SETTINGS).name, Path(SELFTEST).name):
            with path.open("ab") as file:
                file.write(f"\n# {version}\n".encode())
            changed += path.stat().st_size + AVERAGE_CHUNK_BYTES
    return changed


def _files(tree: Path) -> list[Path]:
    return sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
