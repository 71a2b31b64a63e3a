"""Does an authentic directive hold for this receiver, now? Pure, in one fixed order: scope, order, expiry, fit.

The signature was checked before (``envelopes.py``). Nothing here changes a floor: the caller raises floors only after
every check passed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from protocol.directives import Announcement, Offer, ReleaseRef
from protocol.errors import EnvelopeError, ErrorCode, TrustError
from protocol.manifest import ReleaseInfo
from protocol.trust.floors import Floors, is_newer, is_quarantined
from protocol.trust.trusted import PassThrough, ReleaseTarget
from protocol.versions import compare, order_key


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


def check_passes_through(
    ref: ReleaseRef, target: ReleaseTarget, listed: Iterable[ReleaseInfo | PassThrough], receiver: Receiver
) -> None:
    """Whether a release goes past none that no device may skip.

    Args:
        listed: What the offline keys list of the product, or at least what may not be skipped.

    Raises:
        TrustError: E_SOFTWARE: it does, and which one has to come first.
    """
    component = target.info.component
    running = receiver.components.get(component)
    skipped = first_skipped(target.info, listed, receiver.hardware, running)
    if skipped:
        raise TrustError(
            ErrorCode.SOFTWARE,
            f"release {ref.path}: no device may skip {component} {skipped.version}, and {running} runs here; "
            f"{skipped.version} comes first",
        )


def first_skipped(
    info: ReleaseInfo, listed: Iterable[ReleaseInfo | PassThrough], hardware: str, running: str | None
) -> ReleaseInfo | PassThrough | None:
    """The oldest release that may not be skipped between what runs and ``info``, for this hardware; None without one.

    Going back skips nothing, and neither does a device on which the component does not run yet.

    Args:
        running: The version of the component of ``info``.
    """
    if running is None:
        return None
    skipped = [
        one
        for one in listed
        if one.must_pass_through
        and (one.product, one.component) == (info.product, info.component)
        and hardware in one.hardware
        and compare(running, one.version) < 0 < compare(info.version, one.version)
    ]
    return min(skipped, key=lambda one: order_key(one.version), default=None)


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
