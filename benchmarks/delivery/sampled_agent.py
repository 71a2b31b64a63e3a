"""An agent that notes where its own CPU time goes while it downloads; run as a process by the row of steps.

    python -m benchmarks.delivery.sampled_agent DEVICE_HOME OUTPUT.json

A thread looks at every other thread some hundred times a second: the CPU time that a thread used since the last look
goes to what its stack shows now. It looks only while a download is open. The looking itself is not counted.
"""

import asyncio
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from benchmarks.delivery.cpu_steps import step_of
from device_client import transfer
from device_client.agent.journal import Update
from device_client.config import load
from device_client.service import Agent
from protocol.clock import SystemClock

INTERVAL_S = 0.003
SWITCH_S = 0.0005
"""Python hands its lock over this often, so that a look is not late."""


class Sampler:
    """Attributes the CPU time of this process' threads."""

    def __init__(self) -> None:
        self.steps: Counter[str] = Counter()
        self.lines: Counter[str] = Counter()
        self.process_s = 0.0
        self._since = 0.0
        self._last: dict[int, int] = {}
        self._open = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """A download is open."""
        self._last = self._used()
        self._since = time.process_time()
        self._open.set()

    def end(self) -> None:
        """It is done."""
        self._open.clear()
        self.process_s += time.process_time() - self._since

    def _look(self) -> None:
        own = threading.get_ident()
        while True:
            self._open.wait()
            time.sleep(INTERVAL_S)
            used, frames = self._used(), sys._current_frames()  # noqa: SLF001
            if not self._open.is_set():
                continue
            for ident, now in used.items():
                spent = now - self._last.get(ident, now)
                frame = frames.get(ident)
                if ident != own and spent > 0 and frame is not None:
                    step, line = step_of(_stack(frame))
                    self.steps[step] += spent
                    self.lines[line] += spent
            self._last = used

    def _used(self) -> dict[int, int]:
        used: dict[int, int] = {}
        for thread in threading.enumerate():
            if thread.native_id and thread.ident:
                try:  # the kernel's CPU clock of one thread, clock_getcpuclockid(3)
                    used[thread.ident] = time.clock_gettime_ns((~thread.native_id << 3) | 6)
                except OSError:
                    continue
        return used


def _stack(frame: FrameType | None) -> list[tuple[str, str, int]]:
    found = []
    while frame is not None:
        found.append((frame.f_code.co_filename, frame.f_code.co_name, frame.f_lineno))
        frame = frame.f_back
    return found


async def main(home: Path, output: Path) -> None:
    """Run the agent until it is ended; what was noted is written after each download."""
    sys.setswitchinterval(SWITCH_S)
    sampler, inner = Sampler(), transfer.Fetcher.fetch

    async def fetch(self: transfer.Fetcher, update: Update) -> int:
        sampler.begin()
        try:
            return await inner(self, update)
        finally:
            sampler.end()
            found = {
                "process_s": sampler.process_s,
                "steps_ns": sampler.steps,
                "lines_ns": dict(sampler.lines.most_common(40)),
            }
            output.with_suffix(".new").write_text(json.dumps(found))
            output.with_suffix(".new").rename(output)

    transfer.Fetcher.fetch = fetch  # type: ignore[method-assign]
    agent = await asyncio.to_thread(lambda: Agent(*load(home), SystemClock()))
    agent.home.create()
    await agent.run()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
