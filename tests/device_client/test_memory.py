"""One heap for all threads: seen from outside, in a process of its own."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import re, sys, threading
from device_client.memory import use_one_heap
if sys.argv[1] == "one":
    use_one_heap()
gate = threading.Barrier(9)
def work():
    block = [bytearray(50_000) for _ in range(20)]
    gate.wait(); gate.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
gate.wait()
import ctypes
ctypes.CDLL("libc.so.6").malloc_stats()
gate.wait()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have nothing to set")
def test_threads_share_one_heap() -> None:
    """With it there is one arena however many threads allocate at once; without it there are several."""
    arenas = {}
    for kind in ("one", "many"):
        done = subprocess.run([sys.executable, "-c", PROGRAM, kind], capture_output=True, text=True, check=True)
        arenas[kind] = done.stderr.count("Arena ")
    assert arenas["one"] == 1
    assert arenas["many"] > 1
