"""The JSON file of the rows: each is written when it is measured, the others stay."""

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks._machine import machine

FILE = Path(__file__).parent.parent / "results" / "delivery.json"


def samples(values: Sequence[float], digits: int = 4) -> dict[str, Any]:
    """Median and all samples."""
    return {"median": round(statistics.median(values), digits), "samples": [round(value, digits) for value in values]}


def write_row(file: Path, name: str, found: Mapping[str, Any]) -> None:
    """Put one row into the file, with the machine and the time."""
    data = read(file)
    data["machine"] = machine()
    data.setdefault("rows", {})[name] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average": round(os.getloadavg()[0], 1),
        **found,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data, indent=1) + "\n")


def read(file: Path = FILE) -> dict[str, Any]:
    """What was measured so far."""
    if not file.exists():
        return {"benchmark": "delivery"}
    found: dict[str, Any] = json.loads(file.read_text())
    return found
