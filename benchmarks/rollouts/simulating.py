"""How long does a simulation take?

    python -m benchmarks.rollouts.simulating [--devices 10000 100000] [--json FILE]

The plan of three stages with soaks, a pace, permits by site, retries and a time limit over seven virtual days, against
devices of which some fail, are without a link or fall silent. CPU of one process, and the most memory that it had.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks._machine import machine
from orchestrator.model.failure import FailureClass
from orchestrator.model.plan import RolloutSpec
from orchestrator.rollouts.simulation.habits import Habits
from orchestrator.rollouts.simulation.world import simulate

GOALS_S = {100_000: 60, 1_000_000: 600}


def main() -> None:
    """Measure each size in a process of its own."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--devices", type=int, nargs="*", default=[10_000, 100_000])
    words.add_argument("--json", type=Path)
    words.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.one:
        print(json.dumps(_measure(given.one)))
        return
    found = []
    for devices in given.devices:
        command = [sys.executable, "-m", "benchmarks.rollouts.simulating", "--one", str(devices)]
        found.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
        print(found[-1], flush=True)
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(), "goals_s": GOALS_S, "runs": found}, indent=1) + "\n")


def _measure(devices: int) -> dict[str, float | str]:
    spec = RolloutSpec.model_validate(
        {
            "release": "cam/2.0.0",
            "stages": [
                {"name": "canary", "percent": 1, "soak_s": "1h"},
                {"name": "tenth", "percent": 10, "soak_s": "6h"},
                {"name": "all", "percent": 100},
            ],
            "pace_per_minute": devices / 1000,
            "max_unavailable": [{"label": "site", "count": 50}],
            "retries": {"download": {"times": 3}},
            "timeouts": {"queued_s": "2d"},
        }
    )
    failures = {FailureClass.HEALTH: 0.005, FailureClass.DOWNLOAD: 0.02, FailureClass.SILENT: 0.001}
    begin = time.process_time()
    trace = simulate(spec, devices, Habits(failures=failures), seed=1, until_s=7 * 86_400)
    cpu_s = time.process_time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    state = trace.rollout.state.value if trace.rollout else ""
    return {
        "devices": devices,
        "cpu_s": round(cpu_s, 1),
        "peak_mib": peak,
        "state": state,
        "virtual_h": round(trace.end_s / 3600, 1),
        "looks": trace.looks,
        "reports": trace.reports,
        "trace": trace.digest,
    }


if __name__ == "__main__":
    main()
