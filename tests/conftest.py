"""What every test shares: a folder for files that are soon gone, logging as it was before."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

# The same examples every time, and no deadline: a slow machine is no failure. `make test-all` looks further.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("searching", max_examples=500, deadline=None)
settings.load_profile("steady")

MEMORY = Path("/dev/shm")
ROOM_BYTES = 2 << 30
"""Free at least; three processes were seen to have 0.8 GB at a time."""


def _has_room(place: Path) -> bool:
    """Whether it takes a run's files, programs too."""
    try:
        found = os.statvfs(place)
    except OSError:
        return False
    return (
        os.access(place, os.W_OK) and not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize >= ROOM_BYTES
    )


# Everything here is written durably, and a disk that others write to takes longer over it than all the rest; which
# changes are made durable, and in what order, is tested where they are counted. Who sets TMPDIR is obeyed; so are the
# processes of pytest-xdist and of the tests, which inherit it.
if "TMPDIR" not in os.environ and _has_room(MEMORY):
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


HERE = Path(__file__).parent
FLEETS = ("system", "links", "integration", "power", "attacks")
"""Rooms whose tests start whole fleets and wait for them; the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the files that start fleets over the first part of a run: they wait while others compute, none is last."""
    files = list(dict.fromkeys(item.path for item in items))
    rooms = {file: file.relative_to(HERE).parts[0] for file in files}
    waiting = sorted((file for file in files if rooms[file] in FLEETS), key=lambda file: FLEETS.index(rooms[file]))
    others = [file for file in files if rooms[file] not in FLEETS]
    place = {file: number / len(others) for number, file in enumerate(others)}
    place |= {file: 0.8 * number / len(waiting) for number, file in enumerate(waiting)}
    items.sort(key=lambda item: place[item.path])


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command that was called in the test's process set up its own logging, on streams that are closed by now."""
    yield
    structlog.reset_defaults()
