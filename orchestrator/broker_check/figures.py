"""What was measured of a broker, and what it means. Plain values."""

from dataclasses import dataclass, field
from enum import StrEnum


class Verdict(StrEnum):
    """What one figure, or all of them, mean."""

    FIT = "fit"
    LIMITED = "fit with limits"
    UNFIT = "unfit"
    UNKNOWN = "not probed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One probe's result.

    Attributes:
        probe: Its name.
        figure: What was measured, for people.
        limit: What it is held against.
        advice: What to do where it is not fit.
    """

    probe: str
    verdict: Verdict
    figure: str
    limit: str
    advice: str = ""


@dataclass(slots=True)
class Figures:
    """Everything that was measured; None was not probed.

    Attributes:
        tls: (version, cipher).
        mqtt5: Whether MQTT 5 was accepted.
        lookup_few_s, lookup_many_s: From SUBSCRIBE of 16 retained topics to the last of them, with few and with
            ``lookup_others`` other retained topics, median of several.
        windows: By (QoS, window): how many of the window arrived at a reader that was slow at first.
        wildcard_found, wildcard_of: Own small retained messages that a wildcard brought, of how many; ``None`` where
            foreign ones were too many to tell.
        chunk_ok: Whether a chunk of the largest size was taken and given back whole.
        oversize: What became of a packet beyond every limit of ours.
        acknowledged, read_back: Retained messages that were acknowledged, and those of them that were given back.
        forged: Topic and whether a device's write to it was kept; empty where no device identity was there.
        spied: Whether a device was given another device's offer.
        qos_rate: Bytes per second of a fast reader, by QoS.
        cleared: Whether an empty message cleared a topic.
        skipped: Why the rest was not probed.
    """

    tls: tuple[str, str] = ("none", "none")
    mqtt5: bool = False
    lookup_few_s: float | None = None
    lookup_many_s: float | None = None
    lookup_others: int = 0
    windows: dict[tuple[int, int], int] = field(default_factory=dict)
    wildcard_found: int | None = None
    wildcard_of: int = 0
    chunk_ok: bool | None = None
    oversize: str = ""
    acknowledged: int = 0
    read_back: int = 0
    refused: str = ""
    forged: dict[str, bool] = field(default_factory=dict)
    spied: bool | None = None
    qos_rate: dict[int, float] = field(default_factory=dict)
    cleared: bool | None = None
    skipped: str = ""
