"""Measure what delivery costs and how quickly it is, and write the table.

    python -m benchmarks.delivery [ROW ...] [--rounds N] [--json FILE] [--no-setup]

Without names all rows are measured, in about twenty minutes on two cores. A row that is measured takes the place
of the one before in the file; the others stay. ``setup.sh`` beside this file installs the peers.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.delivery import (
    agent_peak,
    agent_steps,
    broker_bytes,
    link_speed,
    publishing,
    results,
    table,
    version_pairs,
    whole_update,
    wire_bytes,
)

SETUP = Path(__file__).parent / "setup.sh"


@dataclass(frozen=True, slots=True)
class Row:
    """A row: how it is measured and how often by default."""

    measure: Callable[[int], Coroutine[Any, Any, dict[str, Any]]]
    rounds: int


ROWS = {
    "broker_bytes": Row(broker_bytes.measure, 5),
    "publishing": Row(publishing.measure, 3),
    "whole_update": Row(whole_update.measure, 3),
    "wire_bytes": Row(wire_bytes.measure, 2),
    "link_speed": Row(link_speed.measure, 2),
    "version_pairs": Row(version_pairs.measure, 1),
    "agent_peak": Row(agent_peak.measure, 1),
    "agent_steps": Row(agent_steps.measure, 3),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON file and the README's table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all by default")
    parser.add_argument("--rounds", type=int, help="of every row; by default each has its own number")
    parser.add_argument("--json", type=Path, default=results.FILE)
    parser.add_argument("--no-setup", action="store_true", help="the peers are there")
    options = parser.parse_args(arguments)
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    if not options.no_setup:
        subprocess.run([SETUP], check=True)
    for name in options.rows or ROWS:
        row, since = ROWS[name], time.monotonic()
        found = asyncio.run(row.measure(options.rounds or row.rounds))
        results.write_row(options.json, name, {"rounds": options.rounds or row.rounds, **found})
        if options.json == results.FILE:
            table.write(table.README, results.read(options.json))
        print(f"{name}: measured in {time.monotonic() - since:.0f} s", flush=True)
    print(table.text(results.read(options.json)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
