"""The lowest version, counter, order and time that a device still accepts. Pure: values in, values out.

Metadata versions, (epoch, seq) and the online part of the clock floor are bound to key sets, so that a rotation
recovers from a fast-forward. Security counters are not: only an offline-signed reset would lower them.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from pydantic import AwareDatetime, BaseModel, ConfigDict

from protocol.errors import EnvelopeError, ErrorCode, TrustError
from protocol.trust.workflow import RoleVersion

MAX_ORDERS = 512
"""How many topics' orders are remembered; the ones whose signatures expired first are forgotten first."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class RoleFloor(_Model):
    """Lowest version of one TUF role under one set of keys."""

    version: int
    keyset: str


class OrderFloor(_Model):
    """The newest order accepted on one topic."""

    epoch: int
    seq: int
    digest: str
    expires: AwareDatetime


class Floors(_Model):
    """Everything that must never fall.

    Attributes:
        roles: By TUF role.
        counters: Security counter by component; rises at commit.
        orders: By topic, under ``director_keyset``.
        clock: No earlier instant is believed.
        clock_keyset: The director keys that raised it last.
        quarantine: sha256 of a release that rolled back -> the attempt that did.
    """

    v: int = 1
    roles: dict[str, RoleFloor] = {}
    counters: dict[str, int] = {}
    orders: dict[str, OrderFloor] = {}
    director_keyset: str = ""
    clock: AwareDatetime | None = None
    clock_keyset: str = ""
    quarantine: dict[str, int] = {}


def raise_roles(floors: Floors, found: Mapping[str, RoleVersion]) -> Floors:
    """Take in verified metadata versions.

    Raises:
        TrustError: E_ROLLBACK_METADATA: a version fell under the same keys.
    """
    roles = dict(floors.roles)
    for name, role in found.items():
        floor = roles.get(name)
        if floor and floor.keyset == role.keyset and role.version < floor.version:
            raise TrustError(
                ErrorCode.ROLLBACK_METADATA, f"{name}: version {role.version}, expected at least {floor.version}"
            )
        roles[name] = RoleFloor(version=role.version, keyset=role.keyset)
    return floors.model_copy(update={"roles": roles})


def bind_director(floors: Floors, keyset: str) -> Floors:
    """Forget orders, and the clock that they raised, when the offline keys list other director keys."""
    if floors.director_keyset == keyset:
        return floors
    clock = floors.clock if floors.clock_keyset == keyset else None
    return floors.model_copy(update={"director_keyset": keyset, "orders": {}, "clock": clock})


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


def raise_order(floors: Floors, topic: str, order: tuple[int, int], digest: str, expires: datetime) -> Floors:
    """Remember an accepted directive."""
    orders = {**floors.orders, topic: OrderFloor(epoch=order[0], seq=order[1], digest=digest, expires=expires)}
    if len(orders) > MAX_ORDERS:
        # What has expired cannot be replayed; the rest of the list is bounded all the same.
        del orders[min((t for t in orders if t != topic), key=lambda t: orders[t].expires)]
    return floors.model_copy(update={"orders": orders})


def trusted_now(floors: Floors, wall: datetime) -> datetime:
    """The later of the machine's clock and the floor: a clock set back revives nothing."""
    return max(wall, floors.clock) if floors.clock else wall


def raise_clock(floors: Floors, issued: datetime, snapshot_expires: datetime, keyset: str) -> Floors:
    """Let a verified directive move the clock floor, at most to a day before the snapshot runs out.

    A stolen director key that signs from the year 2036 therefore cannot lock the device out of its metadata.
    """
    limit = min(issued, snapshot_expires - timedelta(days=1))
    if floors.clock and limit <= floors.clock:
        return floors
    return floors.model_copy(update={"clock": limit, "clock_keyset": keyset})


def raise_counter(floors: Floors, component: str, counter: int) -> Floors:
    """Take in the security counter of what was committed."""
    counters = {**floors.counters, component: max(counter, floors.counters.get(component, 0))}
    return floors.model_copy(update={"counters": counters})


def quarantine(floors: Floors, sha256: str, attempt: int) -> Floors:
    """Set a release aside after it rolled back; only a higher attempt lifts that."""
    return floors.model_copy(update={"quarantine": {**floors.quarantine, sha256: attempt}})


def is_quarantined(floors: Floors, sha256: str, attempt: int) -> bool:
    """Whether this attempt at a release must be refused."""
    return sha256 in floors.quarantine and attempt <= floors.quarantine[sha256]
