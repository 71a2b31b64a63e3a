"""What a benchmark ran on, and the CPU time of another process."""

import os
import platform
import time
from pathlib import Path


def machine() -> dict[str, str | int]:
    """Processor, cores, kernel, Python."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "processor": next(models, platform.machine()),
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def cpu_s(pid: int) -> float:
    """User and system seconds of a process, all of its threads, ended ones included; its children are not in it.

    The kernel's CPU clock of the process (Linux, ``clock_getcpuclockid(3)``): nanoseconds, where ``/proc/PID/stat``
    counts in steps of 10 ms.
    """
    return time.clock_gettime((~pid << 3) | 2)
