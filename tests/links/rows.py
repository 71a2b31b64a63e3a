"""The table of bad links: what goes wrong, when, and what must come of it."""

from dataclasses import dataclass, field
from typing import Any

from tests.links.link import Weather
from tests.links.mqtt_faults import Faults

NARROW = Weather(down_bytes_s=600_000)
"""So that there is a middle of the transfer."""
MIDDLE_BYTES = 500_000
"""How much has gone to the device when "in mid-transfer" begins."""


@dataclass(frozen=True)
class Row:
    """One bad link.

    Attributes:
        what: In words, for the table.
        weather, faults: From the beginning.
        then: What happens in mid-transfer: changes of the weather, ``reset``, ``strand``, ``restart``, ``next broker``.
        after_s: How long that lasts, where it ends.
        seen: What says why, while it goes on and afterwards: codes of refusals, or words of the log.
        ends: Whether the right image must be reached; otherwise the device goes on trying, with the reason visible.
    """

    name: str
    what: str
    weather: Weather = field(default_factory=Weather)
    faults: Faults = field(default_factory=Faults)
    then: dict[str, Any] = field(default_factory=dict)
    after_s: float = 0.0
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: tuple[str, ...] = ()
    ends: bool = True


ROWS = (
    Row("latency", "150 ms round trip", Weather(delay_s=0.075)),
    Row("jitter", "40 to 140 ms round trip, changing", Weather(delay_s=0.02, jitter_s=0.05)),
    Row("bandwidth", "500 kB/s", Weather(down_bytes_s=500_000, up_bytes_s=50_000)),
    Row("reset", "a reset in mid-packet, after each 400 kB", Weather(reset_after_bytes=400_003)),
    Row(
        "cut",
        "a reset and no connection for 1 s, in mid-transfer",
        NARROW,
        then={"reset": True, "refuse": True},
        after_s=1,
    ),
    Row("hole", "nothing arrives for 2.5 s", NARROW, then={"hole_down": True}, after_s=2.5, seen=("chunks_lost",)),
    Row("deaf", "nothing is heard of the device for 2.5 s", NARROW, then={"hole_up": True}, after_s=2.5),
    Row(
        "silence",
        "nothing passes either way for 2.5 s",
        NARROW,
        then={"hole_up": True, "hole_down": True},
        after_s=2.5,
        seen=("chunks_lost",),
    ),
    Row(
        "stranded",
        "a NAT forgets the connection in mid-transfer, and tells nobody",
        NARROW,
        then={"strand": True},
        sections={"broker": {"keepalive_s": 5, "timeout_s": 1.0}},
        seen=("chunks_lost",),
    ),
    Row("drop", "15 % of the chunks are lost", faults=Faults(drop=0.15, first=("drop",)), seen=("chunks_lost",)),
    Row("burst", "a whole window is lost", faults=Faults(first=("drop",) * 16), seen=("chunks_lost",)),
    Row("duplicate", "half of the chunks come twice", faults=Faults(duplicate=0.5)),
    Row("late", "40 % of the chunks come 300 ms late, behind others", faults=Faults(hold_back=0.4)),
    Row("damaged", "20 % of the chunks are damaged", faults=Faults(corrupt=0.2, first=("corrupt",)), seen=("E_CHUNK",)),
    Row("subacks late", "chunks before the SUBACK", faults=Faults(suback_late_s=0.2)),
    Row(
        "subacks lost",
        "each third SUBACK never comes",
        faults=Faults(suback_drop_each=3),
        sections={"broker": {"timeout_s": 1.0}},
    ),
    Row("splinters", "packets in pieces of 701 B", faults=Faults(split_bytes=701)),
    Row("restart", "the agent is killed in mid-transfer", NARROW, then={"restart": True}),
    Row(
        "next broker", "the broker goes for good in mid-transfer; there is another", NARROW, then={"next broker": True}
    ),
    Row(
        "slow broker",
        "40 kB/s where 200 kB/s are the least; there is another",
        Weather(down_bytes_s=40_000),
        sections={"download": {"min_rate_bytes_s": 200_000, "slow_window_s": 1.5}},
        then={"next broker": False},
        seen=("E_SLOW",),
    ),
    Row(
        "drip",
        "in mid-transfer the broker comes down to 4 kB/s; there is another",
        NARROW,
        sections={"download": {"min_rate_bytes_s": 200_000, "slow_window_s": 1.5}},
        then={"down_bytes_s": 4_000.0, "next broker": False},
        seen=("E_SLOW",),
    ),
    Row(
        "a bad day",
        "100 ms, 1 MB/s, resets, 10 % lost, 10 % damaged, 10 % twice, 10 % late",
        Weather(delay_s=0.03, jitter_s=0.04, down_bytes_s=1_000_000, reset_after_bytes=700_001),
        Faults(
            drop=0.1,
            corrupt=0.1,
            duplicate=0.1,
            hold_back=0.1,
            first=("drop", "duplicate", "hold_back", "corrupt"),
            split_bytes=1_999,
        ),
        seen=("E_CHUNK",),
    ),
    Row("forged", "every chunk is damaged, for ever", faults=Faults(corrupt=1.0), seen=("E_CHUNK",), ends=False),
    Row("withheld", "every chunk is lost, for ever", faults=Faults(drop=1.0), seen=("chunks_lost",), ends=False),
)

WEATHERS = {
    "fine": Weather(),
    "far": Weather(delay_s=0.1),
    "unsteady": Weather(delay_s=0.02, jitter_s=0.1),
    "narrow": Weather(down_bytes_s=400_000, up_bytes_s=40_000),
    "breaking": Weather(reset_after_bytes=500_009),
}
FAULTS = {
    "lost": Faults(drop=0.2),
    "twice": Faults(duplicate=0.4),
    "late": Faults(hold_back=0.3),
    "damaged": Faults(corrupt=0.2),
    "splinters": Faults(split_bytes=997),
    "subacks late": Faults(suback_late_s=0.15),
}
EVENTS: dict[str, dict[str, Any]] = {
    "": {},
    "cut": {"reset": True},
    "restart": {"restart": True},
    "hole": {"hole_down": True},
}

EVERY = tuple(
    Row(
        f"{weather_name}, {fault_name}{f', {event}' if event else ''}",
        "a combination",
        weather,
        faults,
        then=then,
        after_s=1.5 if event == "hole" else 0.0,
    )
    for weather_name, weather in WEATHERS.items()
    for fault_name, faults in FAULTS.items()
    for event, then in EVENTS.items()
)
"""Every combination of a weather, a fault and an event."""


def render() -> str:
    """The table for ``docs/reference/links.md``."""
    lines = ["| link | what goes wrong | what comes of it | what says why |", "|---|---|---|---|"]
    for row in ROWS:
        end = "the right image" if row.ends else "goes on trying"
        lines.append(f"| {row.name} | {row.what} | {end} | {', '.join(f'`{word}`' for word in row.seen) or '-'} |")
    return "\n".join(lines) + "\n"
