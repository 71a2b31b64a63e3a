"""From a message to a checked report: topic, size, form, signature, scope. Pure but for the keys that are passed in.

topic -> size cap -> envelope -> payload type -> signature -> model -> the device and fleet of the topic
"""

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel

from protocol.envelopes import Verify, decode, open_envelope
from protocol.errors import EnvelopeError, ErrorCode
from protocol.mqtt.connection import Message
from protocol.reports import (
    INVENTORY_TYPE,
    READINESS_TYPE,
    STATE_TYPE,
    Inventory,
    Presence,
    Progress,
    Readiness,
    Report,
    StateReport,
    Want,
    outcome_digest,
)
from protocol.topics import RULES, Kind, Topics

_SIGNED: dict[Kind, tuple[str, type[Report]]] = {
    Kind.INVENTORY: (INVENTORY_TYPE, Inventory),
    Kind.READINESS: (READINESS_TYPE, Readiness),
    Kind.STATE: (STATE_TYPE, StateReport),
}
_HINTS: dict[Kind, type[BaseModel]] = {Kind.PRESENCE: Presence, Kind.PROGRESS: Progress, Kind.WANT: Want}
KINDS = (*_SIGNED, *_HINTS)
"""Everything that comes up."""

Content = Inventory | Readiness | StateReport | Presence | Progress | Want


@dataclass(frozen=True, slots=True)
class Checked:
    """One report that may be believed as far as its kind goes: signed ones fully, hints not at all.

    Attributes:
        digest: sha256 hex of an outcome's payload; empty for everything else.
    """

    device: str
    content: Content
    digest: str = ""


def device_of(topics: Topics, message: Message) -> str:
    """Who speaks, by the topic; the broker lets a device write into its own topics only.

    Raises:
        EnvelopeError: The topic is none that comes up, or the payload is larger than its cap.
    """
    topic = topics.parse(message.topic)
    if topic.kind not in KINDS:
        raise EnvelopeError(ErrorCode.SCOPE, f"{topic.kind.value}: not a report")
    cap = RULES[topic.kind].max_bytes
    if len(message.payload) > cap:
        raise EnvelopeError(ErrorCode.OVERSIZE, f"{topic.kind.value}: at most {cap} B, found {len(message.payload)}")
    return topic.device


def check(topics: Topics, message: Message, verifier: Callable[[str], Verify | None]) -> Checked:
    """Check one message whose device is known.

    Args:
        verifier: A device's signature check; None where the device is not enrolled.

    Raises:
        ProtocolError: Why it is dropped.
    """
    topic = topics.parse(message.topic)
    device = topic.device
    verify = verifier(device)
    if verify is None:
        raise EnvelopeError(ErrorCode.SCOPE, f"device {device}: not enrolled")
    if topic.kind in _HINTS:
        hint = decode(message.payload, _HINTS[topic.kind])
        assert isinstance(hint, Presence | Progress | Want)
        return Checked(device, hint)
    payload_type, model = _SIGNED[topic.kind]
    report, payload = open_envelope(message.payload, RULES[topic.kind].max_bytes, payload_type, verify, model)
    if (report.fleet, report.device) != (topics.fleet, device):
        raise EnvelopeError(
            ErrorCode.SCOPE, f"report of {report.device} in {report.fleet}: came on the topic of {device}"
        )
    assert isinstance(report, Inventory | Readiness | StateReport)
    is_outcome = isinstance(report, StateReport) and report.is_outcome
    return Checked(device, report, outcome_digest(payload) if is_outcome else "")
