"""A stack goes to the step that its innermost line is about."""

import inspect
import linecache
from types import FunctionType

import pytest

from benchmarks.delivery.cpu_steps import LIBRARY, OTHER, OWN, step_of
from device_client.download import staging
from device_client.download.planner import Plan
from protocol import encryption


def _line(function: FunctionType, text: str) -> tuple[str, str, int]:
    file = inspect.getsourcefile(function) or ""
    lines, first = inspect.getsourcelines(function)
    (offset,) = [number for number, line in enumerate(lines) if text in line][:1]
    return file, function.__name__, first + offset


@pytest.mark.parametrize(
    ("function", "text", "step"),
    [
        (staging.Stage.write, "os.pwrite", "write"),
        (encryption.open_chunk, "sha256(plain)", "verify"),
        (Plan.next_window, "chosen.append", OWN),
    ],
    ids=["write", "verify", "own"],
)
def test_our_own_lines_are_told_by_what_they_call(function: FunctionType, text: str, step: str) -> None:
    """A call into C counts for the step that it is; what is left of our files is our own Python."""
    frame = _line(function, text)
    assert step_of([frame])[0] == step, linecache.getline(frame[0], frame[2])


@pytest.mark.parametrize(
    ("file", "function", "step"),
    [
        ("/lib/python3.11/ssl.py", "read", "fetch"),
        ("/lib/python3.11/selectors.py", "select", "fetch"),
        ("/x/site-packages/paho/mqtt/client.py", "_sock_recv", "fetch"),
        ("/x/site-packages/paho/mqtt/client.py", "_packet_read", LIBRARY),
        ("/lib/python3.11/asyncio/base_events.py", "_run_once", LIBRARY),
        ("/x/site-packages/pydantic/main.py", "validate", OTHER),
    ],
)
def test_files_of_others_are_told_by_their_names(file: str, function: str, step: str) -> None:
    """Sockets are fetching; the MQTT library and the event loop are a step of their own."""
    assert step_of([(file, function, 1), ("/x/device_client/service.py", "run", 1)])[0] == step
