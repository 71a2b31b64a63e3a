"""The README's table of devices, from the JSON file alone: ``python -m benchmarks.device.table`` writes it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks._page import between, where
from benchmarks.delivery.table import README, Line

RESULT = Path(__file__).parents[1] / "results" / "device.json"
BEGIN, END = "<!-- device:begin -->", "<!-- device:end -->"
SHOWN = 5
"""Of the parts that bring most memory."""


def _lines(found: Mapping[str, Any]) -> Iterator[Line]:
    goals = found["goals"]
    yield Line("from the agent's start to connected", f"{found['start_s']:.2f} s", "reported")
    largest = sorted(found["import_mb"].items(), key=lambda item: -item[1])[:SHOWN]
    parts = ", ".join(f"{name} {size:.1f}" for name, size in largest)
    rss, cpu, active = found["idle_rss_mb"], found["idle_cpu_percent"], found["active_s"]
    memory = f"{rss:.1f} MB; most by {parts}"
    yield Line("resident memory, idle", memory, f"< {goals['idle_rss_mb']:g} MB", rss < goals["idle_rss_mb"])
    limit = goals["idle_cpu_percent"]
    yield Line("CPU, idle and connected", f"{cpu:.3f} % of a core", f"< {limit:g} %", cpu < limit)
    image = "10 MiB directory of which 1 % differs: from the rollout's start to active"
    yield Line(image, f"{active:.2f} s", f"< {goals['active_s']:g} s", active < goals["active_s"])
    written = f"{found['written_per_changed_byte']:.0f} B"
    yield Line("the same: written to storage for each byte that differs", written, "reported")


def text(file: Path = RESULT) -> str:
    """The whole table."""
    found = json.loads(file.read_text())
    head = ["| quantity | measured | goal | |", "|---|---|---|---|"]
    return "\n".join([*head, *(line.markdown() for line in _lines(found)), "", f"{where(found['machine'])}."])


def with_table(page: str) -> str:
    """The page with the table of now between its markers; raises ValueError where it has none."""
    return between(page, BEGIN, END, text())


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
