"""Every topic: who may publish it, who may read it, how it is built and parsed.

The only place that knows topic text. The broker's ACL is generated from ``TOPICS`` and a test asks the real
broker whether the two agree. Ids are checked on the way in and on the way out.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from protocol.errors import ErrorCode, ProtocolError
from protocol.identifiers import check_claim, check_digest, check_id, fleet_id

ROOT = "ota/v1"
DELIVERY = "orch-delivery"
INGEST = "orch-ingest"


class Party(StrEnum):
    """Who stands at an end of a topic."""

    DELIVERY = "delivery"  # the orchestrator's publishing session
    INGEST = "ingest"  # the orchestrator's reading session
    DEVICE = "device"  # any device
    OWN_DEVICE = "own device"  # the device that is named in the topic
    CLAIM = "claim"  # whoever holds the claim certificate that is named in the topic
    VIEWER = "viewer"  # dashboards


class Kind(StrEnum):
    """What a topic carries; the value is its template below the fleet's root."""

    TRUST_ROOT = "trust/root/{n}"
    TRUST_BUNDLE = "trust/bundle"
    TRUST_TIMESTAMP = "trust/timestamp"
    ANNOUNCE = "announce/{rollout}"
    OFFER = "offer/{device}/{rollout}"
    CHUNK = "chunk/{cid}"
    PRESENCE = "up/{device}/presence"
    INVENTORY = "up/{device}/inventory"
    READINESS = "up/{device}/readiness"
    STATE = "up/{device}/state"
    PROGRESS = "up/{device}/progress"
    WANT = "up/{device}/want"
    RENEW = "up/{device}/renew"
    CERT = "cert/{device}"
    ENROL_REQUEST = "enrol/{claim}/request"
    ENROL_ANSWER = "enrol/{claim}/answer"
    STATUS_FLEET = "status/fleet"
    STATUS_ROLLOUT = "status/rollout/{rollout}"
    STATUS_DEVICE = "status/device/{device}"
    STATUS_EVENT = "status/event"
    STATUS_SYNC = "status/sync"


@dataclass(frozen=True, slots=True)
class TopicRule:
    """One row of the topic table.

    Attributes:
        kind: The template.
        writer: The one party that may publish.
        readers: The parties to whom it is delivered.
        retained: Whether the broker keeps the last message.
        qos: MQTT quality of service of publisher and subscriber.
        max_bytes: The largest payload that is looked at.
    """

    kind: Kind
    writer: Party
    readers: frozenset[Party]
    retained: bool
    qos: int
    max_bytes: int


def _down(kind: Kind, reader: Party, max_bytes: int) -> TopicRule:
    # Delivery reads back what it publishes: a PUBACK proves nothing.
    return TopicRule(kind, Party.DELIVERY, frozenset({reader, Party.DELIVERY}), True, 1, max_bytes)


def _up(kind: Kind, qos: int, max_bytes: int) -> TopicRule:
    return TopicRule(kind, Party.OWN_DEVICE, frozenset({Party.INGEST}), False, qos, max_bytes)


def _status(kind: Kind, *, retained: bool, qos: int, max_bytes: int = 65_536) -> TopicRule:
    return TopicRule(kind, Party.DELIVERY, frozenset({Party.VIEWER}), retained, qos, max_bytes)


TOPICS: tuple[TopicRule, ...] = (
    _down(Kind.TRUST_ROOT, Party.DEVICE, 16_384),
    _down(Kind.TRUST_BUNDLE, Party.DEVICE, 262_144),
    _down(Kind.TRUST_TIMESTAMP, Party.DEVICE, 2_048),
    _down(Kind.ANNOUNCE, Party.DEVICE, 8_192),
    _down(Kind.OFFER, Party.OWN_DEVICE, 8_192),
    _down(Kind.CHUNK, Party.DEVICE, 262_144),
    _up(Kind.PRESENCE, 1, 1_024),
    _up(Kind.INVENTORY, 1, 32_768),
    _up(Kind.READINESS, 1, 8_192),
    _up(Kind.STATE, 1, 32_768),
    _up(Kind.PROGRESS, 0, 1_024),
    _up(Kind.WANT, 1, 8_192),
    _up(Kind.RENEW, 1, 16_384),
    _down(Kind.CERT, Party.OWN_DEVICE, 32_768),
    TopicRule(Kind.ENROL_REQUEST, Party.CLAIM, frozenset({Party.INGEST}), False, 1, 16_384),
    TopicRule(Kind.ENROL_ANSWER, Party.INGEST, frozenset({Party.CLAIM}), False, 1, 32_768),
    _status(Kind.STATUS_FLEET, retained=True, qos=1),
    _status(Kind.STATUS_ROLLOUT, retained=True, qos=1, max_bytes=196_608),
    _status(Kind.STATUS_DEVICE, retained=True, qos=0),
    _status(Kind.STATUS_EVENT, retained=False, qos=0),
    TopicRule(
        Kind.STATUS_SYNC,
        Party.DELIVERY,
        frozenset({Party.DELIVERY, Party.DEVICE, Party.VIEWER}),
        True,
        1,
        1_024,
    ),
)

RULES: dict[Kind, TopicRule] = {rule.kind: rule for rule in TOPICS}

_CHECKS = {"device": check_id, "rollout": check_id, "cid": check_digest, "claim": check_claim}
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_NUMBER = re.compile(r"^[1-9][0-9]{0,8}\Z")


def _check(name: str, value: str) -> str:
    if name == "n":
        if not _NUMBER.match(value):
            raise ValueError(f"root number {value[:20]!r}: expected a positive number")
        return value
    return _CHECKS[name](value)


@dataclass(frozen=True, slots=True)
class Topic:
    """A parsed topic: its kind and the values that stood in its placeholders."""

    kind: Kind
    values: dict[str, str]

    @property
    def device(self) -> str:
        """The device named in the topic; KeyError where the kind names none."""
        return self.values["device"]

    @property
    def claim(self) -> str:
        """The claim named in the topic; KeyError where the kind names none."""
        return self.values["claim"]

    @property
    def rollout(self) -> str:
        """The rollout named in the topic; KeyError where the kind names none."""
        return self.values["rollout"]


class Topics:
    """Builds and parses the topics of one fleet."""

    def __init__(self, fleet: str) -> None:
        self.fleet = fleet_id(fleet)
        self.root = f"{ROOT}/{self.fleet}"

    def build(self, kind: Kind, **values: str) -> str:
        """The full topic text.

        Raises:
            ValueError: A value is missing, too many, or may not stand in a topic.
        """
        names = _PLACEHOLDER.findall(kind.value)
        if set(names) != set(values):
            raise ValueError(f"topic {kind.value}: expected values {names}, found {sorted(values)}")
        checked = {name: _check(name, value) for name, value in values.items()}
        return f"{self.root}/{kind.value.format(**checked)}"

    def filter(self, kind: Kind, **values: str) -> str:
        """A subscription filter: ``+`` for each placeholder that is not given.

        Raises:
            ValueError: A given value may not stand in a topic.
        """
        names = _PLACEHOLDER.findall(kind.value)
        if not set(values) <= set(names):
            raise ValueError(f"topic {kind.value}: has no values {sorted(set(values) - set(names))}")
        parts = {name: _check(name, values[name]) if name in values else "+" for name in names}
        return f"{self.root}/{kind.value.format(**parts)}"

    def parse(self, text: str) -> Topic:
        """Read a topic back.

        Raises:
            ProtocolError: E_SCOPE for another fleet, E_FORMAT for a topic that is not in the table.
        """
        if not text.startswith(self.root + "/"):
            raise ProtocolError(ErrorCode.SCOPE, f"topic {text[:120]!r}: expected one of fleet {self.fleet}")
        parts = text[len(self.root) + 1 :].split("/")
        for kind, template in _TEMPLATES.get(len(parts), ()):
            values = _match(template, parts)
            if values is not None:
                return Topic(kind, values)
        raise ProtocolError(ErrorCode.FORMAT, f"topic {text[:120]!r}: not in the topic table")


def _match(template: list[str], parts: list[str]) -> dict[str, str] | None:
    values: dict[str, str] = {}
    for expected, found in zip(template, parts, strict=True):
        if expected.startswith("{"):
            name = expected[1:-1]
            try:
                values[name] = _check(name, found)
            except ValueError:
                return None
        elif expected != found:
            return None
    return values


_TEMPLATES: dict[int, list[tuple[Kind, list[str]]]] = {}
for _kind in Kind:
    _split = _kind.value.split("/")
    _TEMPLATES.setdefault(len(_split), []).append((_kind, _split))


def device_acl(fleet: str) -> str:
    """The mosquitto ACL file of the listener for devices; ``%u`` is the certificate's CN.

    No ``user`` line stands in it, so every line is a pattern that holds for each device alone.
    """
    topics = Topics(fleet)
    lines = [f"# Generated from protocol/topics.py for fleet {fleet}. Identity: certificate CN = %u."]
    for rule in TOPICS:
        text = _pattern(topics, rule.kind)
        if rule.writer is Party.OWN_DEVICE:
            lines.append(f"pattern write {text}")
        elif rule.readers & {Party.DEVICE, Party.OWN_DEVICE}:
            lines.append(f"pattern read {text}")
    return "\n".join(lines) + "\n"


def claim_acl(fleet: str) -> str:
    """The mosquitto ACL file of the listener for claims; ``%u`` is the claim certificate's CN."""
    topics = Topics(fleet)
    lines = [f"# Generated from protocol/topics.py for fleet {fleet}. Identity: claim certificate CN = %u."]
    for rule in TOPICS:
        access = "write" if rule.writer is Party.CLAIM else "read" if Party.CLAIM in rule.readers else ""
        if access:
            lines.append(f"pattern {access} {_pattern(topics, rule.kind)}")
    return "\n".join(lines) + "\n"


def service_acl(fleet: str, viewers: tuple[str, ...] = ("viewer",)) -> str:
    """The mosquitto ACL file of the listener for the orchestrator and for viewers."""
    topics = Topics(fleet)
    lines = [f"# Generated from protocol/topics.py for fleet {fleet}. Identity: certificate CN."]
    for user, party in ((DELIVERY, Party.DELIVERY), (INGEST, Party.INGEST), *((v, Party.VIEWER) for v in viewers)):
        lines.append(f"user {check_id(user, 'certificate name')}")
        for rule in TOPICS:
            access = {(True, True): "readwrite", (True, False): "write", (False, True): "read"}.get(
                (rule.writer is party, party in rule.readers)
            )
            if access:
                lines.append(f"topic {access} {topics.filter(rule.kind)}")
    return "\n".join(lines) + "\n"


def _pattern(topics: Topics, kind: Kind) -> str:
    return f"{topics.root}/" + _PLACEHOLDER.sub(lambda m: "%u" if m[1] in ("device", "claim") else "+", kind.value)
