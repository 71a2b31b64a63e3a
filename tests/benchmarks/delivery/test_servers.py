"""CPU time is that of a whole process tree; what has ended and was waited for is in it."""

import os
import subprocess
import sys

import pytest

from benchmarks.delivery.servers import named, tree, tree_cpu_s

BURN = "import time\nwhile time.process_time() < 0.2: pass\n"
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]]); print(flush=True); input()"


def test_the_time_of_children_counts() -> None:
    """A child that has ended leaves its time with its parent."""
    words = [sys.executable, "-c", PARENT, BURN]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()  # its child has ended
        assert parent.pid in tree(os.getpid())
        assert tree_cpu_s(parent.pid) >= 0.2
        parent.communicate(b"\n")


def test_a_process_that_is_not_there_is_an_error() -> None:
    """Nobody's CPU time is taken for that of a server."""
    with pytest.raises(RuntimeError, match="one no-such-server, found 0"):
        named(os.getpid(), "no-such-server")
