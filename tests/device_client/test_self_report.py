"""When the inventory is said again: on news, at a limited rate, never for the same twice."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, cast

import pytest

from device_client.config import DeviceSection, DeviceSettings
from device_client.heartbeat import Heartbeat
from device_client.refusals import Refusals
from device_client.self_report import SelfReport
from protocol.clock import ManualClock
from protocol.errors import ErrorCode, ProtocolError
from protocol.reports import Refusal

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


@dataclass
class Voice:
    """Stands for the reporter: keeps what is said."""

    said: list[tuple[datetime | None, Sequence[Refusal]]] = field(default_factory=list)
    spoke_at: float = 0.0

    async def inventory(
        self, settings: DeviceSettings, version: str | None, stale_since: datetime | None, refusals: Sequence[Refusal]
    ) -> None:
        """Note it."""
        assert (settings.device.id, version) == ("d1", None)
        self.said.append((stale_since, refusals))


@dataclass
class Facts:
    """Stands for verifier and installer."""

    stale_since: datetime | None = None

    def running(self) -> None:
        """Nothing is installed."""


@dataclass
class Bench:
    """A self report with all that it stands on."""

    clock: ManualClock = field(default_factory=lambda: ManualClock(NOON))
    voice: Voice = field(default_factory=Voice)
    facts: Facts = field(default_factory=Facts)

    def __post_init__(self) -> None:
        device = DeviceSection(id="d1", product="gateway", hardware="rev-a")
        self.refusals = Refusals(self.clock)
        self.report = SelfReport(
            DeviceSettings(device=device),
            cast("Any", self.facts),
            cast("Any", self.facts),
            self.refusals,
            cast("Any", self.voice),
            Heartbeat(900, Random(1)),
            self.clock,
        )


@pytest.fixture
def bench() -> Bench:
    """Nothing was said yet."""
    return Bench()


async def test_nothing_new_is_not_said_again(bench: Bench) -> None:
    """After the first word of a session there is silence while nothing changes, however long."""
    await bench.report.send()
    for _ in range(10):
        bench.clock.advance(3600)
        await bench.report.send_news()
    assert len(bench.voice.said) == 1


async def test_a_refusal_is_told_and_a_flood_at_a_limited_rate(bench: Bench) -> None:
    """The first refusal is told within the interval; a thousand different ones are one more report, with counts."""
    await bench.report.send()
    bench.refusals.add("r-1", ProtocolError(ErrorCode.SIGNATURE, "not signed"))
    bench.clock.advance(60)
    await bench.report.send_news()
    assert [one.code for one in bench.voice.said[-1][1]] == [ErrorCode.SIGNATURE]
    for number in range(1000):
        bench.refusals.add("r-1", ProtocolError(ErrorCode.REPLAY, f"order {number}"))
        bench.clock.advance(0.05)
        await bench.report.send_news()
    assert len(bench.voice.said) == 2
    bench.clock.advance(11)
    await bench.report.send_news()
    assert len(bench.voice.said) == 3
    assert bench.voice.said[-1][1][-1].count == 1000


async def test_going_stale_and_coming_back_are_told(bench: Bench) -> None:
    """The operator sees since when a device may have been cut off, and that it is no more."""
    await bench.report.send()
    bench.clock.advance(60)
    bench.facts.stale_since = NOON
    await bench.report.send_news()
    bench.clock.advance(60)
    bench.facts.stale_since = None
    await bench.report.send_news()
    assert [stale for stale, _ in bench.voice.said] == [None, NOON, None]


async def test_silence_has_an_end(bench: Bench) -> None:
    """Once nothing signed was said for the interval it is said; at once where what was said may be lost."""
    bench.clock.advance(440)
    await bench.report.send_sign_of_life()
    assert bench.voice.said == []
    bench.clock.advance(460)
    await bench.report.send_sign_of_life()
    assert len(bench.voice.said) == 1
    bench.voice.spoke_at = bench.clock.monotonic()
    await bench.report.send_sign_of_life()
    assert len(bench.voice.said) == 1
    bench.report.say_again()
    bench.clock.advance(5)
    await bench.report.send_sign_of_life()
    assert len(bench.voice.said) == 2
