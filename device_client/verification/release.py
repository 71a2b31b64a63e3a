"""What this device believes: trusted metadata, accepted directives, and the floors beneath them.

    size -> form -> type -> signature -> scope -> order -> expiry -> (release: listed, same, fits, counter, skips none)

Floors rise only after every check passed and are durable before the result is used. Blocking: call in a thread;
the lock keeps two callers from raising floors past one another.

News needs trust that is fresh. An update that goes on unasked stands on trust that was fresh when it was taken, until
its time is over or the snapshot runs out: a device without a link hears of nothing fresher.
"""

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Generic, Protocol, TypeVar

from device_client.clock import FlooredClock
from device_client.errors import DeviceError
from protocol.clock import Clock
from protocol.directives import ANNOUNCEMENT_TYPE, OFFER_TYPE, Announcement, Directive, Offer, ReleaseRef
from protocol.enrolment import ConnectionTarget
from protocol.envelopes import open_envelope
from protocol.errors import ErrorCode, TrustError
from protocol.executables import ExecutableList, open_list
from protocol.manifest import Artifact
from protocol.topics import RULES, Kind
from protocol.trust.checks import (
    Receiver,
    check_announcement,
    check_offer,
    check_passes_through,
    check_quarantine,
    check_release,
)
from protocol.trust.floors import (
    Floors,
    bind_director,
    quarantine,
    raise_clock,
    raise_counter,
    raise_order,
    raise_roles,
    reset_counters,
    unbind_clock,
)
from protocol.trust.trusted import ReleaseTarget, Trusted
from protocol.trust.workflow import Recovery

M = TypeVar("M", bound=Directive)


class FloorsStore(Protocol):
    """Two durable copies of the floors."""

    def load(self) -> Floors:
        """The newest valid copy."""
        ...

    def save(self, floors: Floors) -> None:
        """Durable when it returns."""
        ...


class TrustSource(Protocol):
    """Where verified metadata comes from: a device's ``TrustStore`` over topics, or another fetcher."""

    def refresh(
        self,
        files: Mapping[str, bytes],
        now: datetime,
        products: tuple[str, ...] = (),
        recovery: Recovery | None = None,
    ) -> Trusted:
        """As ``TrustStore.refresh``."""
        ...


@dataclass(frozen=True, slots=True)
class Accepted(Generic[M]):
    """A directive that passed every check; ``news`` is False for the very same one again."""

    message: M
    news: bool


class Verifier:
    """The one place where outside words become belief."""

    def __init__(self, trust: TrustSource, floors: FloorsStore, receiver: Callable[[], Receiver], clock: Clock) -> None:
        self._trust = trust
        self._store = floors
        self._receiver = receiver
        self._wall = clock
        self.clock = FlooredClock(clock)
        self._lock = threading.Lock()
        self._trusted: Trusted | None = None
        self._damage = ""
        self.unasked_until: Callable[[], datetime | None] = lambda: None  # of the open update
        self.floors = Floors()
        self._load_floors()

    def now(self) -> datetime:
        """The later of the machine's clock and its floor."""
        return self.clock.now()

    @property
    def stale(self) -> bool:
        """Whether freshness ran out: this device may be cut off."""
        return self._trusted is None or self._trusted.timestamp_expires <= self.now()

    @property
    def stale_since(self) -> datetime | None:
        """When freshness ran out; None while it lasts, and where nothing was ever fresh."""
        return self._trusted.timestamp_expires if self._trusted and self.stale else None

    @property
    def root_version(self) -> int:
        """Of the root that is trusted; 0 before anything was verified."""
        return self._trusted.roles["root"].version if self._trusted else 0

    @property
    def connection(self) -> ConnectionTarget | None:
        """The way to the fleet that the offline keys signed, if they did.

        Raises:
            TrustError: E_FORMAT, or E_SCOPE where it is another fleet's.
        """
        found = self._trusted.connection if self._trusted else None
        if found is not None and found.fleet != self._receiver().fleet:
            raise TrustError(ErrorCode.SCOPE, f"connection target: for fleet {found.fleet}")
        return found

    def refresh(self, files: Mapping[str, bytes]) -> None:
        """Take in trust metadata from the topics, or verify the stored set again when ``files`` is empty.

        Raises:
            TrustError: What was believed before stays.
        """
        with self._lock:
            if self._damage:
                self._load_floors()
            self._check_floors()
            receiver, floors = self._receiver(), self.floors
            recovery = Recovery(floors.clock_timestamp_keys, self._wall.now()) if floors.clock else None
            trusted = self._trust.refresh(files, self.now(), (receiver.product,), recovery)
            floors = unbind_clock(raise_roles(floors, trusted.roles), trusted.timestamp_keys)
            floors = reset_counters(floors, trusted.counter_resets)
            self._save(bind_director(floors, trusted.director_keyset(receiver.fleet)))
            self._trusted = trusted

    def recall(self, at: datetime) -> None:
        """After a start, for an update that goes on unasked: verify the stored set by an instant at which it was fresh.

        Raises:
            TrustError: It does not verify, or is older than what is known.
        """
        with self._lock:
            if self._trusted is not None or not self._is_unasked():
                return
            self._check_floors()
            trusted = self._trust.refresh({}, at, (self._receiver().product,))
            raise_roles(self.floors, trusted.roles)
            self._trusted = trusted

    def accept_announcement(self, rollout: str, raw: bytes) -> Accepted[Announcement]:
        """Check an announcement.

        Raises:
            ProtocolError: The code names why; nothing changed.
        """
        check = partial(check_announcement, rollout=rollout)
        return self._accept(f"announce/{rollout}", Kind.ANNOUNCE, ANNOUNCEMENT_TYPE, Announcement, check, raw)

    def accept_offer(self, rollout: str, raw: bytes) -> Accepted[Offer]:
        """Check an offer to this device.

        Raises:
            ProtocolError: The code names why; nothing changed.
        """
        check = partial(check_offer, rollout=rollout)
        return self._accept(f"offer/{rollout}", Kind.OFFER, OFFER_TYPE, Offer, check, raw)

    def check(self, ref: ReleaseRef, attempt: int | None = None) -> ReleaseTarget:
        """The release that both keys name, if it fits this device now. Asked again before install and activation.

        Raises:
            TrustError: Why it does not.
        """
        with self._lock:
            trusted, receiver = self._believed(known=True), self._receiver()
            target = trusted.release(ref.path)
            check_release(ref, target, receiver, self.floors)
            if target is None:
                raise TrustError(ErrorCode.NOT_RELEASED, f"release {ref.path}: not listed")
            check_passes_through(ref, target, trusted.must_pass_through(receiver.product), receiver)
            if attempt is not None:
                check_quarantine(ref, attempt, self.floors)
            return target

    def executables(self, artifact: Artifact, target: ReleaseTarget) -> ExecutableList | None:
        """What may be run of an artifact; None where the offline keys ask for no list.

        Raises:
            ContentError: E_EXEC_SIGNATURE: the list is missing, or not signed by its component's team.
            TrustError: Nothing is believed now.
        """
        with self._lock:
            verify = self._believed(known=True).verify_codesign(artifact.component)
        return open_list(artifact, target.info, verify) if verify else None

    def committed(self, component: str, counter: int) -> None:
        """Let the security counter rise; older code must never run again from here on."""
        with self._lock:
            self._save(raise_counter(self.floors, component, counter))

    def set_aside(self, sha256: str, attempt: int) -> None:
        """Quarantine a release that rolled back."""
        with self._lock:
            self._save(quarantine(self.floors, sha256, attempt))

    def _accept(
        self, topic: str, kind: Kind, payload_type: str, model: type[M], check: Callable[..., bool], raw: bytes
    ) -> Accepted[M]:
        with self._lock:
            receiver, trusted = self._receiver(), self._believed(known=True)
            verify = trusted.verify_director(receiver.fleet)
            message, payload = open_envelope(raw, RULES[kind].max_bytes, payload_type, verify, model)
            digest = hashlib.sha256(payload).hexdigest()
            news = check(message, topic=topic, digest=digest, receiver=receiver, floors=self.floors, now=self.now())
            if news:
                self._raise(topic, message, digest, verify.signed_by)
            return Accepted(message, news)

    def _load_floors(self) -> None:
        """Floors that cannot be read stop every update and nothing else: what runs goes on, the operator is told."""
        try:
            self.floors, self._damage = self._store.load(), ""
        except DeviceError as error:
            self._damage = str(error)
        self.clock.set_floor(self.floors.clock)

    def _check_floors(self) -> None:
        if self._damage:
            raise TrustError(ErrorCode.METADATA, self._damage)

    def _is_unasked(self) -> bool:
        until = self.unasked_until()
        return until is not None and until > self.now()

    def _believed(self, *, known: bool = False) -> Trusted:
        """What is trusted now; ``known``: for what is no news, which an update that goes on unasked stands on."""
        self._check_floors()
        if self._trusted is None:
            raise TrustError(ErrorCode.WITHHELD, "no trust metadata has been verified yet")
        if known and self._is_unasked() and self._trusted.snapshot_expires > self.now():
            return self._trusted
        if self._trusted.timestamp_expires <= self.now():
            raise TrustError(
                ErrorCode.FREEZE, f"timestamp expired {self._trusted.timestamp_expires.isoformat()}; none newer came"
            )
        return self._trusted

    def _raise(self, topic: str, message: Directive, digest: str, keyid: str) -> None:
        floors, trusted = self.floors, self._believed()
        floors = raise_order(floors, topic, message.order, digest, message.expires, keyid)
        self._save(
            raise_clock(
                floors,
                message.issued,
                timestamp_expires=trusted.timestamp_expires,
                snapshot_expires=trusted.snapshot_expires,
                director_keys=keyid,
                timestamp_keys=trusted.timestamp_keys,
            )
        )

    def _save(self, floors: Floors) -> None:
        if floors != self.floors:
            self._store.save(floors)
            self.floors = floors
            self.clock.set_floor(floors.clock)
