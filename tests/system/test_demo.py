"""The demo is the system test: public faces only, real broker, real agents, real kills."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MAX_SECONDS = 120
CANARIES = 2


@pytest.mark.parametrize("devices", [9, pytest.param(12, marks=pytest.mark.slow)], ids=["the fewest", "as by default"])
def test_the_demo_shows_what_the_readme_says(devices: int) -> None:
    """1.1.0 reaches all in spite of five mishaps; 1.2.0 halts after the canaries; the last line is one object."""
    flagship = Path(sys.executable).parent / "flagship"
    run = subprocess.run(
        [flagship, "demo", "--devices", str(devices), "-o", "json"],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    summary = json.loads(run.stdout.splitlines()[-1])
    good, bad = summary.pop("rollouts")
    assert good == {
        "release": "gateway/1.1.0",
        "state": "completed",
        "succeeded": devices,
        "rolled_back": 0,
        "untouched": 0,
    }
    assert bad == {
        "release": "gateway/1.2.0",
        "state": "halted",
        "succeeded": 0,
        "rolled_back": CANARIES,
        "untouched": devices - CANARIES,
    }
    assert set(summary) == {
        "devices",
        "image_bytes",
        "published_chunk_bytes",
        "delivered_chunk_bytes",
        "resumed_devices",
        "seconds",
    }
    assert summary["devices"] == devices
    assert summary["resumed_devices"] == 2
    assert summary["image_bytes"] > 1_000_000
    # Each chunk is published once: the second release shares nearly all of the first. What devices have is not fetched.
    assert summary["published_chunk_bytes"] < summary["image_bytes"]
    assert 0 < summary["delivered_chunk_bytes"] < devices * summary["published_chunk_bytes"] / 4
    assert summary["seconds"] <= MAX_SECONDS
