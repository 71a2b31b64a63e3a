"""Which of two versions is the newer one: Debian's order (Debian Policy, 5.6.12), the one of ``dpkg``. Pure.

Runs of digits count as numbers, so 1.10 follows 1.9; ``~`` sorts before everything, even the end, so 1.0~rc1 comes
before 1.0. What follows the last ``-`` is the revision, and is compared last: 1.0-rc1 comes *after* 1.0. Two texts may
be equal in this order and yet differ: 1.0, 1.00 and 1.0-0.

An epoch (``1:``) is not in our versions: ``identifiers.check_version`` has no colon. ``_`` is, and sorts as Debian
sorts what is no letter.
"""

import re

OrderKey = tuple[tuple[int, ...], tuple[int, ...]]
_PARTS = re.compile("([^0-9]*)([0-9]*)")
_END = 0
"""Of a run of other characters, and of the text: after ``~``, before all else."""


def compare(a: str, b: str) -> int:
    """Below 0 where ``a`` is older than ``b``, above where it is newer, 0 where the order has them equal.

    Args:
        a: A version, as ``VersionText`` is.
        b: Another.
    """
    left, right = order_key(a), order_key(b)
    return (left > right) - (left < right)


def order_key(version: str) -> OrderKey:
    """What versions are sorted by, oldest first."""
    upstream, hyphen, revision = version.rpartition("-")
    return (_key(upstream), _key(revision)) if hyphen else (_key(version), _key(""))


def _key(text: str) -> tuple[int, ...]:
    """Other characters and numbers in turn. Tuples of one beginning part where one text ends, and an end sorts."""
    key: list[int] = []
    for other, digits in _PARTS.findall(text or "0"):
        if other or digits:
            key += [*map(_weight, other), _END, int(digits or "0")]
    return (*key, _END)


def _weight(character: str) -> int:
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256
