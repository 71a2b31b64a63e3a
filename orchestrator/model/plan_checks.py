"""What parts of a plan say together: each is right by itself, and yet they cannot be kept. Raises ValueError."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol


class Slice(Protocol):
    """The part of a stage that percentages and names are checked on."""

    @property
    def name(self) -> str:
        """Of the stage."""
        ...

    @property
    def percent(self) -> float | None:
        """Its cumulative share, where it has one."""
        ...


def check_stages(stages: Sequence[Slice]) -> None:
    """Refuse names that are given twice, and percentages that do not add up."""
    names = [stage.name for stage in stages]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"stages: two have the name {twice}; give each its own")
    shares = [(stage.name, stage.percent) for stage in stages if stage.percent is not None]
    for (_, former), (name, share) in pairwise(shares):
        if share <= former:
            raise ValueError(
                f"stage {name}: {share:g}% does not add to the {former:g}% before it; "
                "percentages are shares of all members so far and must rise"
            )
    last = stages[-1]
    if last.percent is not None and last.percent != 100:
        raise ValueError(
            f"stage {last.name}: percentages add up to {last.percent:g}%, expected 100%; end with a stage of 100%"
        )


def check_growth(base: float | None, maximum: float) -> None:
    """Refuse a pace that would never grow, or has nothing to begin with."""
    if base is None:
        raise ValueError("pace_growth: needs pace_per_minute, the rate that it begins with")
    if maximum <= base:
        raise ValueError(
            f"pace_growth: max_per_minute {maximum:g} is not above pace_per_minute {base:g}; it would never grow"
        )


def check_limits(named: Sequence[tuple[str | None, str | None]]) -> None:
    """Refuse two limits for one (label, group)."""
    if len(set(named)) != len(named):
        raise ValueError("max_unavailable: two limits for one label or group; keep the lower one")
