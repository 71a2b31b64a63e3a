"""The README's table of rollouts, from the JSON files alone: ``python -m benchmarks.rollouts.table`` writes it."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks._page import between, where
from benchmarks.delivery.table import README, Line

RESULTS = Path(__file__).parents[1] / "results"
BEGIN, END = "<!-- rollouts:begin -->", "<!-- rollouts:end -->"
Found = Mapping[str, Any]


def _looking(found: Found) -> Iterator[Line]:
    largest = max(row["members"] for row in found["looks"])
    for row in found["looks"]:
        if row["members"] not in (1000, largest):
            continue
        what = f"one look with its writes when nothing changed, {row['members']:,} members, {row['stages']} stages"
        idle, goal = row["idle_ms"], found["goal_ms"]
        yield Line(what, f"{idle:.0f} ms", f"< {goal:.0f} ms", idle < goal)


def _planning(found: Found) -> Iterator[Line]:
    results, goal = found["results"], found["goal"]
    for name in ("selector", "stages"):
        row = results[name]
        yield Line(
            f"planning over {results['devices']:,} devices by selector, {row['stages']} stages",
            f"{row['plan_s']:.1f} s, {row['peak_mib']} MiB",
            f"< {goal['plan_s']:.0f} s, {goal['peak_mib']} MB",
            row["plan_s"] < goal["plan_s"] and row["peak_mib"] * 1.048576 < goal["peak_mib"],
        )
    placed = results["placed"]
    yield Line(
        f"placing {placed['members']:,} members at the start",
        f"{placed['place_s']:.0f} s; the longest write {placed['longest_write_ms']:.0f} ms",
        "reported",
    )


def _simulating(found: Found) -> Iterator[Line]:
    for row in found["runs"]:
        goal = found["goals_s"].get(str(row["devices"]))
        yield Line(
            f"simulating {row['devices']:,} devices, up to 7 days",
            f"{row['cpu_s']:.0f} s of CPU, {row['peak_mib']} MiB, {row['virtual_h']:.0f} h passed",
            f"< {goal} s" if goal else "reported",
            row["cpu_s"] < goal if goal else None,
        )


def _halting(found: Found) -> Iterator[Line]:
    for name, what in (("rollout", "rollout halt"), ("fleet", "halt-all")):
        row, goals = found[name], found["goals_ms"]
        yield Line(
            f"`{what}`: to its latch", f"{row['latch_ms']:.0f} ms", f"< {goals['latch']} ms", row["latch_ms"] < 50
        )
        yield Line(
            f"the same: to 99 % of {found['devices']:,} connected devices having said waiting(hold)",
            f"{row['heard_ms'] / 1000:.2f} s; the command answered after {row['answer_ms']:.0f} ms",
            f"< {goals['heard'] / 1000:g} s",
            row["heard_ms"] < goals["heard"],
        )


_ROWS: Mapping[str, Callable[[Found], Iterator[Line]]] = {
    "looking": _looking,
    "planning": _planning,
    "simulating": _simulating,
    "halting": _halting,
}


def text(results: Path = RESULTS) -> str:
    """The whole table; what was not measured is not in it."""
    found = {name: json.loads(file.read_text()) for name in _ROWS if (file := results / f"{name}.json").is_file()}
    head = ["| quantity | measured | goal | |", "|---|---|---|---|"]
    lines = [line.markdown() for name, data in found.items() for line in _ROWS[name](data)]
    return "\n".join([*head, *lines, "", f"{where(next(iter(found.values()))['machine'])}."])


def with_table(page: str) -> str:
    """The page with the table of now between its markers; raises ValueError where it has none."""
    return between(page, BEGIN, END, text())


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
