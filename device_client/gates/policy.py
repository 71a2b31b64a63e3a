"""The strictest of several policies. Pure.

Manifest, announcement and the device's own configuration each make demands; none makes another's laxer. Windows are no
figure of which one could be the stricter: every set of them must hold, so they stand beside the merged policy.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from protocol.manifest import Policy
from protocol.windows import PolicyWindow

N = TypeVar("N", int, bool)
_ADDED = {"windows"}
"""Demands that only ever add to others."""


@dataclass(frozen=True, slots=True)
class WindowSet:
    """The windows of one policy, of which one must be open.

    Attributes:
        whose: Who demands it, for people.
    """

    whose: str
    windows: tuple[PolicyWindow, ...]


def strictest(*policies: Policy) -> Policy:
    """One policy that holds only if every one of ``policies`` holds; None stays where none has a demand.

    Without windows: several sets do not make one. ``window_sets`` has them.
    """
    return Policy(
        min_battery_percent=_largest(policy.min_battery_percent for policy in policies),
        require_approval=_largest(policy.require_approval for policy in policies),
        allow_in_use=_smallest(policy.allow_in_use for policy in policies),
        require_way_back=_largest(policy.require_way_back for policy in policies),
        min_interval_s=_largest(policy.min_interval_s for policy in policies),
    )


def window_sets(**policies: Policy) -> tuple[WindowSet, ...]:
    """The windows of every policy that names some, by whose it is; each set must be open."""
    return tuple(WindowSet(whose, policy.windows) for whose, policy in policies.items() if policy.windows)


def asks_for_less(policy: Policy, than: Policy) -> tuple[str, ...]:
    """The demands of ``than`` that ``policy`` names and names laxer: what is to be deferred as E_UNSAFE.

    A demand that ``policy`` does not name is not asked away. Windows never ask for less: they are waited for beside
    those of others.
    """
    merged = strictest(policy, than).model_dump(exclude_none=True)
    demanded = than.model_dump(exclude_none=True)
    named = policy.model_dump(exclude_none=True, exclude=_ADDED)
    return tuple(name for name, value in named.items() if name in demanded and merged[name] != value)


def _largest(values: Iterable[N | None]) -> N | None:
    return max((value for value in values if value is not None), default=None)


def _smallest(values: Iterable[bool | None]) -> bool | None:
    return min((value for value in values if value is not None), default=None)
