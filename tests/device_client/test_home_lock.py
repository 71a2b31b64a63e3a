"""One agent on one home, whoever started it and however the other one ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from device_client.errors import ConflictError, DeviceError
from device_client.home_lock import alone

HOLDER = """
import sys, time
from pathlib import Path
from device_client.home_lock import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_keeps_us_out_until_it_is_gone(tmp_path: Path) -> None:
    """Even SIGKILL leaves no lock behind."""
    lock = tmp_path / "state" / "lock"
    lock.parent.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConflictError, match="another agent runs on this home"), alone(lock):
            pytest.fail("two at once")
        os.kill(holder.pid, signal.SIGKILL)
    with alone(lock):
        pass


def test_the_same_process_is_no_exception(tmp_path: Path) -> None:
    """Two agents of one process on one home are two agents; the lock is free again after the block, errors or not."""
    with alone(tmp_path / "lock"), pytest.raises(ConflictError), alone(tmp_path / "lock"):
        pytest.fail("two at once")
    with pytest.raises(ZeroDivisionError), alone(tmp_path / "lock"):
        raise ZeroDivisionError
    with alone(tmp_path / "lock"):
        pass


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    """A link in its place, or no folder: one sentence that names the file."""
    (tmp_path / "lock").symlink_to("elsewhere")
    for path in (tmp_path / "lock", tmp_path / "nowhere" / "lock"):
        with pytest.raises(DeviceError, match="cannot be locked"), alone(path):
            pytest.fail("held")
    assert not (tmp_path / "elsewhere").exists()
