"""Memory and pressure: what the kernel shows against what the owner allows."""

from pathlib import Path

import pytest

from device_client.config_gates import GatesSection
from device_client.gates.gate import GateContext, Ready, Verdict, Wait
from device_client.gates.memory import Memory, MemoryGate, MemoryLimits, judge, read_memory
from protocol.manifest import Policy
from protocol.states import Phase

CONTEXT = GateContext(Phase.INSTALL, "r", 0, Policy(), "ab" * 32)
STALLED = "some avg10=1.00 avg60=42.50 avg300=0.10 total=99\nfull avg10=0.00 avg60=3.00 avg300=0.00 total=9\n"


def _proc(path: Path, meminfo: str = "MemFree: 1 kB\nMemAvailable:     2048 kB\nCached: 9 kB\n") -> Path:
    (path / "pressure").mkdir(parents=True)
    (path / "meminfo").write_text(meminfo)
    for resource in ("memory", "io", "cpu"):
        (path / "pressure" / resource).write_text(STALLED)
    return path


async def _judge(proc: Path, **settings: object) -> list[Verdict]:
    gates = GatesSection.model_validate(settings)
    verdicts = await MemoryGate(proc, MemoryLimits.of(gates), waits=gates.unknown == "wait").judge(CONTEXT)
    return [verdict for verdict in verdicts if verdict != Ready()]


async def test_an_ordinary_machine_is_ready() -> None:
    """The defaults ask for nothing, on the machine that runs this and on one that shows nothing."""
    assert await _judge(Path("/proc")) == []
    assert await _judge(Path("/nowhere"), unknown="wait") == []


async def test_the_memory_of_this_machine() -> None:
    """The real file is understood: some memory is available, never a petabyte."""
    assert await _judge(Path("/proc"), min_memory_bytes=1, unknown="wait") == []
    (short,) = await _judge(Path("/proc"), min_memory_bytes=2**50)
    assert isinstance(short, Wait)
    assert short.code == "memory_low"


async def test_the_figure_and_the_limit(tmp_path: Path) -> None:
    """Exactly enough is enough; a byte less says what there is and what is needed."""
    proc = _proc(tmp_path / "proc")
    assert await _judge(proc, min_memory_bytes=2048 * 1024) == []
    short = await _judge(proc, min_memory_bytes=2048 * 1024 + 1)
    assert short == [Wait("memory_low", "2097152 B of memory available; 2097153 B are needed")]


async def test_each_pressure_has_its_reason(tmp_path: Path) -> None:
    """Memory, io and cpu are judged apart, by the average over a minute of what stalled some task."""
    proc = _proc(tmp_path / "proc")
    shut = await _judge(
        proc, max_io_pressure_percent=42.4, max_cpu_pressure_percent=42.5, max_memory_pressure_percent=9
    )
    assert [(verdict.code, verdict.detail) for verdict in shut if isinstance(verdict, Wait)] == [
        ("pressure", "memory pressure at 42.5 % of the last minute; at most 9 % is allowed"),
        ("pressure", "io pressure at 42.5 % of the last minute; at most 42.4 % is allowed"),
    ]


@pytest.mark.parametrize("content", [None, "", "MemAvailable: much", "MemAvailable: -3 kB", "MemTotal: 9 kB"])
async def test_what_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    """A kernel that shows nothing, or something else, is no reason to wait unless the owner says so."""
    proc = tmp_path / "proc"
    if content is not None:
        _proc(proc, content)
        for file in (proc / "pressure").iterdir():
            file.write_text(content)
    limits = {"min_memory_bytes": 5, "max_io_pressure_percent": 9}
    assert await _judge(proc, **limits) == []
    waiting = await _judge(proc, **limits, unknown="wait")
    assert [verdict.code for verdict in waiting if isinstance(verdict, Wait)] == ["unknown", "unknown"]
    assert "5 B are needed" in str(waiting)


def test_only_what_has_a_limit_is_read(tmp_path: Path) -> None:
    """No pressure is asked of the kernel that nobody wants to know."""
    assert read_memory(_proc(tmp_path / "proc"), ("io",)) == Memory(2048 * 1024, {"io": 42.5})
    assert judge(Memory(None, {}), MemoryLimits(0, {}), waits=True) == [Ready()]
