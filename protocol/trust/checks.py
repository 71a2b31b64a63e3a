"""Does an authentic directive hold for this receiver, now? Pure, in one fixed order: scope, order, expiry, fit.

The signature was checked before (``envelopes.py``). Nothing here changes a floor: the caller raises floors only after
every check passed.
"""

from dataclasses import dataclass
from datetime import datetime

from protocol.directives import Announcement, Offer, ReleaseRef
from protocol.errors import EnvelopeError, ErrorCode, TrustError
from protocol.trust.floors import Floors, is_newer, is_quarantined
from protocol.trust.trusted import ReleaseTarget


@dataclass(frozen=True, slots=True)
class Receiver:
    """Who is being addressed.

    Attributes:
        components: component -> version that runs now.
    """

    fleet: str
    device: str
    product: str
    hardware: str
    components: dict[str, str]


def check_announcement(
    message: Announcement, *, rollout: str, topic: str, digest: str, receiver: Receiver, floors: Floors, now: datetime
) -> bool:
    """Whether an announcement is news.

    Returns:
        False for the very same message again.

    Raises:
        EnvelopeError: E_SCOPE, E_REPLAY, E_EQUIVOCATION or E_EXPIRED.
    """
    _equal("fleet", message.fleet, receiver.fleet)
    _equal("rollout", message.rollout, rollout)
    return _current(message.order, message.expires, topic, digest, floors, now)


def check_offer(
    message: Offer, *, rollout: str, topic: str, digest: str, receiver: Receiver, floors: Floors, now: datetime
) -> bool:
    """Whether an offer is news for this device.

    Returns:
        False for the very same message again.

    Raises:
        EnvelopeError: E_SCOPE, E_REPLAY, E_EQUIVOCATION or E_EXPIRED.
    """
    _equal("fleet", message.fleet, receiver.fleet)
    _equal("device", message.device, receiver.device)
    _equal("rollout", message.rollout, rollout)
    return _current(message.order, message.expires, topic, digest, floors, now)


def check_release(ref: ReleaseRef, target: ReleaseTarget | None, receiver: Receiver, floors: Floors) -> None:
    """Whether the offline keys and the director name the same release, and it fits this device.

    Raises:
        TrustError: E_NOT_RELEASED, E_MISMATCH, E_HARDWARE, E_SOFTWARE or E_ROLLBACK_RELEASE.
    """
    if target is None:
        raise TrustError(ErrorCode.NOT_RELEASED, f"release {ref.path}: not listed by the offline keys")
    info = target.info
    if (ref.length, ref.sha256, ref.counter) != (target.length, target.sha256, info.counter):
        raise TrustError(ErrorCode.MISMATCH, f"release {ref.path}: the order names other bytes than the offline keys")
    if info.product != receiver.product or receiver.hardware not in info.hardware:
        raise TrustError(
            ErrorCode.HARDWARE,
            f"release {ref.path}: for {info.product} on {', '.join(info.hardware)}, "
            f"this is {receiver.product} on {receiver.hardware}",
        )
    for component, version in info.requires.items():
        if receiver.components.get(component) != version:
            raise TrustError(
                ErrorCode.SOFTWARE,
                f"release {ref.path}: needs {component} {version}, found {receiver.components.get(component, 'none')}",
            )
    for component, version in info.conflicts.items():
        if receiver.components.get(component) == version:
            raise TrustError(ErrorCode.SOFTWARE, f"release {ref.path}: does not go with {component} {version}")
    floor = floors.counters.get(info.component, 0)
    if info.counter < floor:
        raise TrustError(
            ErrorCode.ROLLBACK_RELEASE, f"release {ref.path}: counter {info.counter}, expected at least {floor}"
        )


def check_quarantine(ref: ReleaseRef, attempt: int, floors: Floors) -> None:
    """Whether this device may try this release (again).

    Raises:
        TrustError: E_HEALTH: it rolled back before and no higher attempt was ordered.
    """
    if is_quarantined(floors, ref.sha256, attempt):
        raise TrustError(
            ErrorCode.HEALTH,
            f"release {ref.path}: set aside since attempt {floors.quarantine[ref.sha256]} rolled back; "
            "a higher attempt lifts that",
        )


def _equal(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise EnvelopeError(ErrorCode.SCOPE, f"{what} {found}: this is {expected}")


def _current(order: tuple[int, int], expires: datetime, topic: str, digest: str, floors: Floors, now: datetime) -> bool:
    newer = is_newer(floors, topic, order, digest)
    if expires <= now:
        raise EnvelopeError(ErrorCode.EXPIRED, f"expired {expires.isoformat()}, it is {now.isoformat()}")
    return newer
