"""In use: inhibitor files that hold, have run out, or cannot be read."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from device_client.gates.gate import GateContext, Ready, Verdict, Wait
from device_client.gates.in_use import InUseGate, inhibit, inhibitors, release
from protocol.clock import ManualClock
from protocol.manifest import Policy
from protocol.states import Phase

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands at NOW."""
    return ManualClock(NOW)


async def _judge(
    directory: Path, clock: ManualClock, phase: Phase = Phase.INSTALL, allow_in_use: bool | None = None
) -> Verdict:
    context = GateContext(phase, "r", 0, Policy(allow_in_use=allow_in_use), "ab" * 32)
    return await InUseGate(directory, clock).judge(context)


async def test_nobody(tmp_path: Path, clock: ManualClock) -> None:
    """No file, or no directory: ready."""
    assert await _judge(tmp_path, clock) == Ready()
    assert await _judge(tmp_path / "absent", clock) == Ready()


async def test_someone(tmp_path: Path, clock: ManualClock) -> None:
    """An inhibitor waits, with who and why; releasing it, even twice, opens the gate."""
    inhibit(tmp_path, "player", "a film is running")
    assert await _judge(tmp_path, clock) == Wait("in_use", "in use by player: a film is running")
    release(tmp_path, "player")
    release(tmp_path, "player")
    assert await _judge(tmp_path, clock) == Ready()


async def test_until(tmp_path: Path, clock: ManualClock) -> None:
    """An inhibitor with an end holds until then, not longer."""
    inhibit(tmp_path, "player", until=NOW + timedelta(seconds=60))
    assert isinstance(await _judge(tmp_path, clock), Wait)
    clock.advance(60)
    assert await _judge(tmp_path, clock) == Ready()


def test_said_again(tmp_path: Path) -> None:
    """What one says replaces what it said before."""
    inhibit(tmp_path, "player")
    inhibit(tmp_path, "player", until=NOW - timedelta(seconds=1))
    assert not inhibitors(tmp_path, NOW)
    assert [path.name for path in tmp_path.iterdir()] == ["player.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"why": "no who"}',
        b'{"who": "a/b"}',
        b'{"who": "player", "until": "tomorrow"}',
        b'{"who": "player", "until": "2020-01-01T00:00:00"}',
        b'{"who": "player", "why": "' + b"x" * 5000 + b'"}',
        b"[" * 4000,
    ],
    ids=["empty", "cut", "binary", "list", "no who", "bad who", "bad until", "naive until", "too long", "deep"],
)
async def test_what_cannot_be_read_inhibits(tmp_path: Path, clock: ManualClock, content: bytes) -> None:
    """A malformed file closes the gate and is named, so that a person can remove it."""
    (tmp_path / "odd.json").write_bytes(content)
    verdict = await _judge(tmp_path, clock)
    assert isinstance(verdict, Wait)
    assert "odd.json" in verdict.detail


async def test_a_directory_in_place_of_a_file_inhibits(tmp_path: Path, clock: ManualClock) -> None:
    """Also what is no file at all closes the gate."""
    (tmp_path / "odd.json").mkdir()
    assert isinstance(await _judge(tmp_path, clock), Wait)


async def test_downloads_and_policy(tmp_path: Path, clock: ManualClock) -> None:
    """A download disturbs nobody, and where the policy allows it an install is not asked either."""
    inhibit(tmp_path, "player")
    assert await _judge(tmp_path, clock, Phase.DOWNLOAD) == Ready()
    assert await _judge(tmp_path, clock, Phase.INSTALL, allow_in_use=True) == Ready()
    for phase in (Phase.INSTALL, Phase.ACTIVATE):
        assert isinstance(await _judge(tmp_path, clock, phase, allow_in_use=False), Wait)


async def test_many(tmp_path: Path, clock: ManualClock) -> None:
    """The detail names a few and counts the rest."""
    for number in range(5):
        inhibit(tmp_path, f"p{number}")
    assert await _judge(tmp_path, clock) == Wait("in_use", "in use by p0; p1; p2 and 2 more")
    assert len(inhibitors(tmp_path, NOW)) == 5


@pytest.mark.parametrize("who", ["", "../x", "a/b", ".new", "a b"])
def test_hostile_names(tmp_path: Path, who: str) -> None:
    """A name that is no id makes and removes no file."""
    with pytest.raises(ValueError, match="inhibitor"):
        inhibit(tmp_path, who)
    with pytest.raises(ValueError, match="inhibitor"):
        release(tmp_path, who)
    assert not list(tmp_path.iterdir())
