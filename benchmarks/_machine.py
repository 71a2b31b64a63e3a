"""What a benchmark ran on, the CPU time of another process, and what signatures cost here."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519


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


def signature_us() -> tuple[float, float]:
    """CPU of one P-256 verification and of one Ed25519 signature by the library alone, microseconds; best of three."""
    device, director, data = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate(), bytes(600)
    scheme = ec.ECDSA(hashes.SHA256())
    signature, public = device.sign(data, scheme), device.public_key()
    return _us(lambda: public.verify(signature, data, scheme)), _us(lambda: director.sign(data))


def _us(call: Callable[[], object], times: int = 1000) -> float:
    best = float("inf")
    for _ in range(3):
        start = time.thread_time()
        for _ in range(times):
            call()
        best = min(best, time.thread_time() - start)
    return round(best / times * 1e6, 1)
