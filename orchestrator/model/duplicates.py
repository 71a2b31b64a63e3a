"""Whether two live devices speak under one id. Pure.

Every start of an agent is an *instance*: a random name that is never stored, so a copy of a home, a restored backup and
a factory reset all come up under a new one. An instance that another one followed is over. When it speaks again, with a
report that is newer than all it said before, it was alive all the while: it *returned*. One return may have another
cause (a machine's memory was set back to a snapshot, a broker gave out late what it had held back); the second one
within a day has not. Neither clocks nor the order of sessions between instances play a part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

RETURNS = 2
WINDOW = timedelta(days=1)
MAX_INSTANCES = 16
"""Kept per device; of more copies than that, some pair returns within it soon enough."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One start of an agent, with the order of the newest report that it made."""

    name: str
    boot: str
    session: int
    seq: int


@dataclass(frozen=True, slots=True)
class Instances:
    """What is remembered of one device.

    Attributes:
        known: The one that spoke last is last.
        returns: How often one came back, since ``since``.
    """

    known: tuple[Instance, ...] = ()
    returns: int = 0
    since: datetime | None = None

    @property
    def are_two(self) -> bool:
        """Whether more than one of them is alive."""
        return self.returns >= RETURNS

    @property
    def are_on_two_machines(self) -> bool:
        """Whether the last two were started on different boots."""
        return len({one.boot for one in self.known[-2:]}) > 1

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Instances":
        """Read what ``to_json`` wrote; {} is nothing known."""
        since = value.get("since")
        known: Sequence[Mapping[str, Any]] = value.get("known", ())
        return cls(
            tuple(Instance(**one) for one in known),
            value.get("returns", 0),
            datetime.fromisoformat(since) if since else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        known = [asdict(one) for one in self.known]
        return {"known": known, "returns": self.returns, "since": self.since.isoformat() if self.since else None}


def heard(before: Instances, spoke: Instance, now: datetime) -> Instances:
    """Take in who made a signed report; what is no news changes nothing."""
    former = next((one for one in before.known if one.name == spoke.name), None)
    if former is not None and (spoke.session, spoke.seq) <= (former.session, former.seq):
        return before  # a duplicate, or a replay
    others = tuple(one for one in before.known if one.name != spoke.name)
    after = replace(before, known=(*others, spoke)[-MAX_INSTANCES:])
    if former is None or former == before.known[-1]:
        return after
    if before.since is None or now - before.since > WINDOW:
        return replace(after, returns=1, since=now)
    return replace(after, returns=before.returns + 1)
