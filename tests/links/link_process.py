"""A link in a process of its own, so that it takes no time from what is measured through it. Blocking."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from tests.links.link import Counted, Weather


class LinkProcess:
    """A running link; ``port`` is where it listens."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.port = int(self._read()["port"])
        self.pid = process.pid

    def change(self, **changes: Any) -> None:
        """Another weather from now on."""
        self._ask(changes)

    def reset(self) -> None:
        """End every connection with a reset."""
        self._ask("reset")

    def strand(self) -> None:
        """Nothing passes on the present connections ever again."""
        self._ask("strand")

    def counted(self) -> Counted:
        """What passed so far."""
        return Counted(**self._ask("count"))

    def _ask(self, what: Any) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the link ended with code {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def link_process(port: int, weather: Weather | None = None) -> Iterator[LinkProcess]:
    """Run a link in front of a port of loopback."""
    words = [sys.executable, "-m", "tests.links.link", str(port), json.dumps(asdict(weather or Weather()))]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield LinkProcess(process)
    finally:
        process.terminate()
        process.communicate(timeout=10)
