"""The lowest version, counter, order and time that a device still accepts. Pure: values in, values out.

Metadata versions, (epoch, seq) and the online part of the clock floor are bound to keys, so that a rotation
recovers from a fast-forward: a floor goes when a key that may have raised it is no longer listed. A key that is added
takes no floor away, or every overlap of two keys would open a window for replays. Security counters are bound to no
key: only an offline-signed reset lowers them. A key set is written as its members, separated by spaces.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from pydantic import AwareDatetime, BaseModel, ConfigDict

from protocol.errors import EnvelopeError, ErrorCode, TrustError
from protocol.trust.trusted import CounterReset, RoleVersion, holds

MAX_ORDERS = 512
"""How many topics' orders are remembered; the ones whose signatures expired first are forgotten first."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class RoleFloor(_Model):
    """Lowest version of one TUF role under one set of keys."""

    version: int
    keyset: str


class OrderFloor(_Model):
    """The newest order accepted on one topic, and the director key that signed it ("" where that is not known)."""

    epoch: int
    seq: int
    digest: str
    expires: AwareDatetime
    keyid: str = ""


class Floors(_Model):
    """Everything that must never fall.

    Attributes:
        roles: By TUF role.
        counters: Security counter by component; rises at commit.
        resets: Number of the newest counter reset that was applied, by component.
        orders: By topic.
        director_keyset: The director keys that were listed last.
        clock: No earlier instant is believed.
        clock_keyset: The director key that raised it last.
        clock_timestamp_keys: The timestamp keys by which that was bounded.
        quarantine: sha256 of a release that rolled back -> the attempt that did.
    """

    v: int = 1
    roles: dict[str, RoleFloor] = {}
    counters: dict[str, int] = {}
    resets: dict[str, int] = {}
    orders: dict[str, OrderFloor] = {}
    director_keyset: str = ""
    clock: AwareDatetime | None = None
    clock_keyset: str = ""
    clock_timestamp_keys: str = ""
    quarantine: dict[str, int] = {}


def higher(one: Floors, other: Floors) -> Floors:
    """The strictest of two: for copies that should be alike and are not. No floor of either is lost."""
    roles = {**one.roles}
    for name, role in other.roles.items():
        if name not in roles or role.version > roles[name].version:
            roles[name] = role
    orders = {**one.orders}
    for topic, order in other.orders.items():
        known = orders.get(topic)
        if known is None or (order.epoch, order.seq) > (known.epoch, known.seq):
            orders[topic] = order
    clocks = [floors.clock for floors in (one, other) if floors.clock]
    return one.model_copy(
        update={
            "roles": roles,
            "orders": orders,
            "counters": _highest(one.counters, other.counters),
            "resets": _highest(one.resets, other.resets),
            "quarantine": _highest(one.quarantine, other.quarantine),
            "clock": max(clocks, default=None),
        }
    )


def _highest(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}


def raise_roles(floors: Floors, found: Mapping[str, RoleVersion]) -> Floors:
    """Take in verified metadata versions; a floor whose keys are all still there holds.

    Raises:
        TrustError: E_ROLLBACK_METADATA: a version fell under the same keys.
    """
    roles = dict(floors.roles)
    for name, role in found.items():
        floor = roles.get(name)
        if floor and holds(floor.keyset, role.keyset) and role.version < floor.version:
            raise TrustError(
                ErrorCode.ROLLBACK_METADATA, f"{name}: version {role.version}, expected at least {floor.version}"
            )
        roles[name] = RoleFloor(version=role.version, keyset=role.keyset)
    return floors.model_copy(update={"roles": roles})


def bind_director(floors: Floors, keyset: str) -> Floors:
    """Forget orders, and the clock, that were raised by a director key which the offline keys no longer list.

    While two keys are listed, both stand on the same floors: the second cannot be used to replay what the first
    replaced. When the first is removed, only what it signed last is forgotten.
    """
    if floors.director_keyset == keyset:
        return floors
    listed, all_stay = set(keyset.split()), holds(floors.director_keyset, keyset)
    orders = {
        topic: floor for topic, floor in floors.orders.items() if (floor.keyid in listed if floor.keyid else all_stay)
    }
    clock = floors.clock if holds(floors.clock_keyset, keyset) else None
    return floors.model_copy(update={"director_keyset": keyset, "orders": orders, "clock": clock})


def is_newer(floors: Floors, topic: str, order: tuple[int, int], digest: str) -> bool:
    """Whether a directive is newer than the last one on its topic; False for the very same one again.

    Raises:
        EnvelopeError: E_REPLAY for an older one, E_EQUIVOCATION for another one with the same order.
    """
    floor = floors.orders.get(topic)
    if floor is None or order > (floor.epoch, floor.seq):
        return True
    if order < (floor.epoch, floor.seq):
        raise EnvelopeError(
            ErrorCode.REPLAY, f"order {order[0]}.{order[1]}, expected more than {floor.epoch}.{floor.seq}"
        )
    if digest != floor.digest:
        raise EnvelopeError(ErrorCode.EQUIVOCATION, f"order {order[0]}.{order[1]} was signed with another content")
    return False


def raise_order(
    floors: Floors, topic: str, order: tuple[int, int], digest: str, expires: datetime, keyid: str = ""
) -> Floors:
    """Remember an accepted directive, and which director key signed it."""
    floor = OrderFloor(epoch=order[0], seq=order[1], digest=digest, expires=expires, keyid=keyid)
    orders = {**floors.orders, topic: floor}
    if len(orders) > MAX_ORDERS:
        # What has expired cannot be replayed; the rest of the list is bounded all the same.
        del orders[min((t for t in orders if t != topic), key=lambda t: orders[t].expires)]
    return floors.model_copy(update={"orders": orders})


def raise_clock(
    floors: Floors,
    issued: datetime,
    *,
    timestamp_expires: datetime,
    snapshot_expires: datetime,
    director_keys: str,
    timestamp_keys: str,
) -> Floors:
    """Let a verified directive move the clock floor: a clock that is set back then revives nothing.

    At most to the timestamp's expiry, so that the floor alone never makes fresh metadata look expired; and at most to
    a day before the offline-signed snapshot runs out, whatever stolen online keys sign.

    Raises:
        EnvelopeError: E_CLOCK: issued later than an honest director, whose timestamp is fresh, can have.
    """
    check_issued(issued, timestamp_expires)
    limit = min(issued, timestamp_expires, snapshot_expires - timedelta(days=1))
    if floors.clock and limit <= floors.clock:
        return floors
    return floors.model_copy(
        update={"clock": limit, "clock_keyset": director_keys, "clock_timestamp_keys": timestamp_keys}
    )


def check_issued(issued: datetime, timestamp_expires: datetime) -> None:
    """Refuse a directive from the future: it would outlive the rotation of the key that signed it.

    Raises:
        EnvelopeError: E_CLOCK.
    """
    if issued > timestamp_expires:
        raise EnvelopeError(
            ErrorCode.CLOCK,
            f"issued {issued.isoformat()}, expected at most {timestamp_expires.isoformat()}, "
            "when the fleet's timestamp runs out",
        )


def unbind_clock(floors: Floors, timestamp_keys: str) -> Floors:
    """Forget the clock floor when root no longer lists a timestamp key under which it rose (TUF 5.3.11)."""
    if floors.clock is None or holds(floors.clock_timestamp_keys, timestamp_keys):
        return floors
    return floors.model_copy(update={"clock": None})


def raise_counter(floors: Floors, component: str, counter: int) -> Floors:
    """Take in the security counter of what was committed."""
    counters = {**floors.counters, component: max(counter, floors.counters.get(component, 0))}
    return floors.model_copy(update={"counters": counters})


def reset_counters(floors: Floors, resets: Mapping[str, CounterReset]) -> Floors:
    """Let the offline targets role set counters anew, each numbered reset once; the only way in which they fall."""
    news = {name: reset for name, reset in resets.items() if reset.number > floors.resets.get(name, 0)}
    if not news:
        return floors
    counters = {**floors.counters, **{name: reset.counter for name, reset in news.items()}}
    applied = {**floors.resets, **{name: reset.number for name, reset in news.items()}}
    return floors.model_copy(update={"counters": counters, "resets": applied})


def quarantine(floors: Floors, sha256: str, attempt: int) -> Floors:
    """Set a release aside after it rolled back; only a higher attempt lifts that."""
    return floors.model_copy(update={"quarantine": {**floors.quarantine, sha256: attempt}})


def is_quarantined(floors: Floors, sha256: str, attempt: int) -> bool:
    """Whether this attempt at a release must be refused."""
    return sha256 in floors.quarantine and attempt <= floors.quarantine[sha256]
