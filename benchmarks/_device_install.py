"""An agent as a device has it: what ``requirements/device.txt`` names and nothing else.

The environment of the tests has more: a log library that finds rich loads it, and 6 MB with it. Made once for each
lock, in the folder that ``FLAGSHIP_BENCH_CACHE`` names.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "device.txt"


def device_agent() -> tuple[list[str], dict[str, str]]:
    """(words that begin a ``flagship-device`` command, environment for them). Blocking; installs where it must."""
    mark = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:12]
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "flagship-bench"
    place = Path(os.environ.get("FLAGSHIP_BENCH_CACHE", default)) / f"device-{mark}"
    python = place / "bin" / "python"
    if not (place / "whole").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        words = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--require-hashes")
        subprocess.run([python, *words, "--no-deps", "-r", LOCK], check=True)
        (place / "whole").touch()
    return [str(python), "-m", "device_client.cli"], {"PYTHONPATH": str(ROOT)}
