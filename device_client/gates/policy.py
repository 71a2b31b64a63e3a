"""The strictest of several policies. Pure.

Manifest, announcement and the device's own configuration each make demands; none makes another's laxer.
"""

from collections.abc import Iterable
from typing import TypeVar

from protocol.manifest import Policy

N = TypeVar("N", int, bool)


def strictest(*policies: Policy) -> Policy:
    """One policy that holds only if every one of ``policies`` holds; None stays where none has a demand."""
    return Policy(
        min_battery_percent=_largest(policy.min_battery_percent for policy in policies),
        require_approval=_largest(policy.require_approval for policy in policies),
        allow_in_use=_smallest(policy.allow_in_use for policy in policies),
        require_way_back=_largest(policy.require_way_back for policy in policies),
        min_interval_s=_largest(policy.min_interval_s for policy in policies),
    )


def asks_for_less(policy: Policy, than: Policy) -> tuple[str, ...]:
    """The demands of ``than`` that ``policy`` names and names laxer: what is to be deferred as E_UNSAFE.

    A demand that ``policy`` does not name is not asked away.
    """
    merged = strictest(policy, than).model_dump(exclude_none=True)
    demanded = than.model_dump(exclude_none=True)
    named = policy.model_dump(exclude_none=True)
    return tuple(name for name, value in named.items() if name in demanded and merged[name] != value)


def _largest(values: Iterable[N | None]) -> N | None:
    return max((value for value in values if value is not None), default=None)


def _smallest(values: Iterable[bool | None]) -> bool | None:
    return min((value for value in values if value is not None), default=None)
