"""Topics: building refuses what may not stand in one, parsing is its inverse, the ACL says the same."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ErrorCode, ProtocolError
from protocol.identifiers import CLAIM_PATTERN
from protocol.topics import (
    DELIVERY,
    INGEST,
    RULES,
    TOPICS,
    Kind,
    Party,
    Topics,
    claim_acl,
    device_acl,
    service_acl,
)

FLEET = Topics("north")
VALUES = {"device": "dev1", "rollout": "r-1", "cid": "ab" * 32, "n": "3", "claim": "claim.batch7"}
ids = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
hostile = st.one_of(
    st.text().filter(
        lambda t: (
            (not t.isascii() or not t.replace("-", "a").replace("_", "a").isalnum()) and not re.match(CLAIM_PATTERN, t)
        )
    ),
    st.sampled_from(["", "a/b", "+", "#", "..", "$SYS", "a\0", "-a", "_a", "a" * 65, "%u", "%c", "a\n"]),
)


def _values(kind: Kind) -> dict[str, str]:
    return {name: value for name, value in VALUES.items() if f"{{{name}}}" in kind.value}


@pytest.mark.parametrize("kind", Kind)
def test_parsing_is_the_inverse_of_building(kind: Kind) -> None:
    """Every kind's topic reads back as the same kind with the same values."""
    topic = FLEET.parse(FLEET.build(kind, **_values(kind)))
    assert topic.kind is kind
    assert topic.values == _values(kind)


@given(device=ids, rollout=ids)
def test_any_ids_survive_the_way_there_and_back(device: str, rollout: str) -> None:
    """Ids that pass the check are never changed or confused by a topic."""
    topic = FLEET.parse(FLEET.build(Kind.OFFER, device=device, rollout=rollout))
    assert (topic.device, topic.rollout) == (device, rollout)


@given(hostile, st.sampled_from([kind for kind in Kind if "{" in kind.value]))
def test_building_refuses_every_hostile_value(text: str, kind: Kind) -> None:
    """No wildcard, separator, blank or control character gets into a topic, wherever it stands."""
    for name in _values(kind):
        values = {**_values(kind), name: text}
        with pytest.raises(ValueError, match="expected"):
            FLEET.build(kind, **values)
        with pytest.raises(ValueError, match="expected"):
            FLEET.filter(kind, **values)


@given(hostile)
def test_a_hostile_fleet_has_no_topics(text: str) -> None:
    """The fleet's own id is checked like any other."""
    with pytest.raises(ValueError, match="fleet id"):
        Topics(text)


@given(st.text(max_size=200))
def test_parsing_never_fails_in_another_way(text: str) -> None:
    """Any text below the root is a topic of the table or a ProtocolError."""
    try:
        topic = FLEET.parse(f"{FLEET.root}/{text}")
    except ProtocolError as error:
        assert error.code is ErrorCode.FORMAT
    else:
        assert FLEET.build(topic.kind, **topic.values) == f"{FLEET.root}/{text}"


def test_another_fleets_topic_is_out_of_scope() -> None:
    """A topic of another fleet is refused by scope, also when its name begins like ours."""
    for other in ("northern", "south"):
        with pytest.raises(ProtocolError) as caught:
            FLEET.parse(Topics(other).build(Kind.TRUST_BUNDLE))
        assert caught.value.code is ErrorCode.SCOPE


@pytest.mark.parametrize("values", [{}, {"device": "a"}, {"device": "a", "rollout": "b", "cid": "c"}])
def test_building_wants_exactly_the_kinds_values(values: dict[str, str]) -> None:
    """Too few or too many values are a caller's bug, not a topic."""
    with pytest.raises(ValueError, match="expected values"):
        FLEET.build(Kind.OFFER, **values)


def test_filters_have_wildcards_only_where_nothing_was_given() -> None:
    """A subscription names what is known and leaves the rest open; unknown names are refused."""
    assert FLEET.filter(Kind.OFFER, device="dev1") == "ota/v1/north/offer/dev1/+"
    assert FLEET.filter(Kind.STATE) == "ota/v1/north/up/+/state"
    assert FLEET.filter(Kind.TRUST_BUNDLE) == "ota/v1/north/trust/bundle"
    with pytest.raises(ValueError, match="has no values"):
        FLEET.filter(Kind.TRUST_BUNDLE, device="dev1")


@pytest.mark.parametrize("number", ["0", "-1", "01", "1.0", "x", "1" * 10, "١"])
def test_root_numbers_are_plain_positive_numbers(number: str) -> None:
    """A root's number has one form, so that nobody walks over the roots in circles."""
    with pytest.raises(ValueError, match="root number"):
        FLEET.build(Kind.TRUST_ROOT, n=number)


def test_each_kind_has_exactly_one_rule_and_one_writer() -> None:
    """The table is complete: a topic without a rule would be open to nobody, or to everybody."""
    assert set(RULES) == set(Kind)
    assert len(TOPICS) == len(Kind)


def test_no_packet_exceeds_what_the_broker_takes() -> None:
    """Every payload fits the broker's packet limit of 300,000 B with its topic and header."""
    assert all(rule.max_bytes + 1_000 < 300_000 for rule in TOPICS)


def test_devices_acl_holds_for_each_device_alone() -> None:
    """Every line is a pattern; what names a device names the one that is connected."""
    lines = device_acl("north").splitlines()[1:]
    assert all(line.startswith("pattern ") for line in lines)
    for rule in TOPICS:
        matching = [line for line in lines if line.endswith("/" + rule.kind.value.replace("{device}", "%u"))]
        if rule.writer is Party.OWN_DEVICE:
            assert matching == [f"pattern write ota/v1/north/{rule.kind.value.replace('{device}', '%u')}"]
    assert "pattern read ota/v1/north/offer/%u/+" in lines
    assert not any("status/device" in line or "/offer/+" in line for line in lines)


def test_services_acl_gives_viewers_nothing_but_status() -> None:
    """A dashboard's certificate reads status topics and writes none."""
    text = service_acl("north", ("viewer", "wall"))
    sections = {part.split("\n", 1)[0]: part for part in text.split("user ")[1:]}
    assert set(sections) == {DELIVERY, INGEST, "viewer", "wall"}
    viewer = sections["viewer"].splitlines()[1:]
    assert viewer
    assert all(line.startswith("topic read ota/v1/north/status/") for line in viewer)
    ingest = sections[INGEST].splitlines()[1:]
    heard = ("topic read ota/v1/north/up/", "topic read ota/v1/north/enrol/+/request")
    said = [line for line in ingest if not line.startswith(heard)]
    assert said == ["topic write ota/v1/north/enrol/+/answer"]


def test_a_claim_has_two_topics_and_no_more() -> None:
    """It asks on its own and hears the answers to its own; no device's topic matches a claim's name."""
    assert claim_acl("north").splitlines()[1:] == [
        "pattern write ota/v1/north/enrol/%u/request",
        "pattern read ota/v1/north/enrol/%u/answer",
    ]
    assert not any("enrol" in line for line in device_acl("north").splitlines())
    for name in ("batch7", "claim.", "claim.a/b", "claim.+", "claim.a.b", "claim." + "a" * 58):
        with pytest.raises(ValueError, match="claim"):
            FLEET.build(Kind.ENROL_ANSWER, claim=name)
    with pytest.raises(ValueError, match="id "):
        FLEET.build(Kind.CERT, device="claim.batch7")


def test_acl_refuses_a_user_that_would_add_lines() -> None:
    """A certificate name with a line break does not write the ACL."""
    with pytest.raises(ValueError, match="certificate name"):
        service_acl("north", ("viewer\ntopic readwrite #",))
