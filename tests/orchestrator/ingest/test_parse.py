"""From a message to a checked report: the size before the form, the signature before the content."""

import pytest

from orchestrator.ingest import desk
from orchestrator.ingest.parse import KINDS, check, device_of
from protocol.envelopes import verify_with
from protocol.errors import EnvelopeError, ProtocolError
from protocol.mqtt.connection import Message
from protocol.reports import StateReport, outcome_digest
from protocol.states import State
from protocol.topics import RULES, TOPICS, Kind, Party
from tests.orchestrator.ingest.speakers import TOPICS as NAMES
from tests.orchestrator.ingest.speakers import Speaker, message

ONE = Speaker("dev1")


def test_everything_that_a_device_may_say_is_listened_to() -> None:
    """The kinds are those of the topic table that ingest and the desk read: none is forgotten, none is read twice."""
    assert not set(KINDS) & set(desk.KINDS)
    assert {*KINDS, *desk.KINDS} == {rule.kind for rule in TOPICS if Party.INGEST in rule.readers}


@pytest.mark.parametrize("kind", KINDS)
def test_a_cap_is_exact_and_comes_first(kind: Kind) -> None:
    """One byte more is E_OVERSIZE without a look at the content; at the cap the topic names the speaker."""
    cap = RULES[kind].max_bytes
    assert device_of(NAMES, message(kind, "dev1", b"\xff" * cap)) == "dev1"
    with pytest.raises(EnvelopeError, match=f"at most {cap} B, found {cap + 1}") as refusal:
        device_of(NAMES, message(kind, "dev1", b"\xff" * (cap + 1)))
    assert refusal.value.code == "E_OVERSIZE"


@pytest.mark.parametrize(
    "rule", [rule for rule in TOPICS if Party.INGEST not in rule.readers], ids=lambda r: r.kind.name
)
def test_what_goes_down_is_no_report(rule: object) -> None:
    """Whatever the broker lets through: an offer that comes in is none."""
    kind = rule.kind  # type: ignore[attr-defined]
    values = {"device": "dev1", "rollout": "r-1", "cid": "a" * 64, "n": "1", "claim": "claim.a"}
    names = {name: value for name, value in values.items() if f"{{{name}}}" in kind.value}
    with pytest.raises(EnvelopeError) as refusal:
        device_of(NAMES, Message(NAMES.build(kind, **names), b"{}", False, 1))
    assert refusal.value.code == "E_SCOPE"


@pytest.mark.parametrize("device", ["", "a/b", "+", "#", "..", "a" * 65, "dev1\n", "dév"])
def test_a_hostile_name_is_nobody(device: str) -> None:
    """Also where a broker passed it on."""
    with pytest.raises((ProtocolError, ValueError)):
        device_of(NAMES, Message(f"{NAMES.root}/up/{device}/state", b"{}", False, 1))


def test_only_an_outcome_has_a_digest() -> None:
    """Of the payload's bytes, as the device computes it; a state on the way has none."""
    verify = verify_with(ONE.signer.public_key)
    payload = ONE.payload(StateReport, 1, 1, rollout="r-1", nonce="nonce-1-1", attempt=1, state=State.FAILED)
    failed = check(NAMES, ONE.state(1, 1, State.FAILED), lambda _: verify)
    assert failed.digest == outcome_digest(payload)
    assert check(NAMES, ONE.state(1, 2, State.DOWNLOADING), lambda _: verify).digest == ""


def test_a_signature_is_asked_for_before_the_content_is_read() -> None:
    """Unsigned nonsense in a right envelope is E_SIGNATURE, not E_FORMAT: the payload was not parsed."""
    verify = verify_with(ONE.signer.public_key)
    stranger = Speaker("dev1")
    with pytest.raises(EnvelopeError) as refusal:
        check(NAMES, stranger.ready(1, 1), lambda _: verify)
    assert refusal.value.code == "E_SIGNATURE"
