"""What can happen to an update. Values; the machine decides what follows."""

from dataclasses import dataclass

from protocol.directives import Action, Offer
from protocol.errors import ErrorCode
from protocol.reports import Reason


@dataclass(frozen=True, slots=True)
class Fits:
    """The offer was checked against the offline keys and fits."""

    component: str
    version: str
    from_version: str | None


@dataclass(frozen=True, slots=True)
class AlreadyRuns:
    """The offered release is what runs."""

    component: str
    version: str


@dataclass(frozen=True, slots=True)
class Refused:
    """An authentic, current offer does not fit, or a gate refused for good."""

    code: ErrorCode
    detail: str


@dataclass(frozen=True, slots=True)
class OfferRenewed:
    """A newer offer of the same rollout and attempt; ``granted``: it answers our nonce."""

    offer: Offer
    granted: bool


@dataclass(frozen=True, slots=True)
class GrantEnded:
    """The activate grant ran out on the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Announced:
    """The rollout's announcement changed."""

    action: Action


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """The rollout's announcement ran out in mid-transfer, and none newer came."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The orchestrator closed the offer before an outcome."""

    reason: str


@dataclass(frozen=True, slots=True)
class Superseded:
    """The orchestrator closed the offer for the sake of another rollout's."""

    reason: str


@dataclass(frozen=True, slots=True)
class Heard:
    """An offer named our nonce; ``outcome``: it named an outcome too."""

    nonce: str
    outcome: bool


@dataclass(frozen=True, slots=True)
class GatesOpen:
    """All gates of the phase are open; ``forced``: some are not, and have been waited for long enough."""

    forced: bool = False


@dataclass(frozen=True, slots=True)
class GatesOpenOffline:
    """All gates are open, the one among them that allows going on unasked: an order for a device without a link."""


@dataclass(frozen=True, slots=True)
class GatesShut:
    """Some gates are shut: wait."""

    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Waited:
    """Gates of this device were shut for so long, since that was told last."""

    seconds: float


@dataclass(frozen=True, slots=True)
class WaitedTooLong:
    """Gates of this device were shut past the owner's deadline, and the update is to end."""

    detail: str


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """Gates that were open are shut right before what they guard: nothing of it was done."""

    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Declined:
    """A person at the device said no."""

    detail: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """Every byte is here and verified."""

    bytes_fetched: int


@dataclass(frozen=True, slots=True)
class FetchInterrupted:
    """The connection went in mid-transfer; the transfer goes on by itself."""


@dataclass(frozen=True, slots=True)
class Failed:
    """What was under way failed."""

    code: ErrorCode
    detail: str
    log: str = ""


@dataclass(frozen=True, slots=True)
class Installed:
    """The new version is in place beside the old one."""


@dataclass(frozen=True, slots=True)
class Activated:
    """The new version is the one that runs."""


@dataclass(frozen=True, slots=True)
class HealthPassed:
    """Files and health checks of the running version are good."""

    log: str = ""


@dataclass(frozen=True, slots=True)
class VerifyTimedOut:
    """No answer came while verifying: no broker, or no orchestrator, for too long."""

    detail: str


@dataclass(frozen=True, slots=True)
class Committed:
    """The new version stays."""


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The former version runs again."""


Event = (
    Fits
    | AlreadyRuns
    | Refused
    | OfferRenewed
    | GrantEnded
    | Announced
    | LeaseEnded
    | Closed
    | Superseded
    | Heard
    | GatesOpen
    | GatesOpenOffline
    | GatesShut
    | Waited
    | WaitedTooLong
    | TurnedAway
    | Declined
    | Fetched
    | FetchInterrupted
    | Failed
    | Installed
    | Activated
    | HealthPassed
    | VerifyTimedOut
    | Committed
    | RolledBack
)
