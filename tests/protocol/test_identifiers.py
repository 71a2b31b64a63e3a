"""Ids, versions and digests: what may stand in a topic, a path and a certificate."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from protocol.identifiers import (
    DigestText,
    IdText,
    ReleaseName,
    VersionText,
    check_digest,
    check_id,
    check_version,
    device_id,
    fleet_id,
    rollout_id,
)

HOSTILE_IDS = [
    "",
    "a/b",
    "+",
    "#",
    "a+",
    "a#",
    "$SYS",
    "..",
    ".",
    "-a",
    "_a",
    "a b",
    "a\n",
    "a\0",
    "ä",
    "a" * 65,
    "a.b",
    "%u",
    "ａ",
]


@pytest.mark.parametrize("text", HOSTILE_IDS, ids=repr)
def test_hostile_id_is_refused(text: str) -> None:
    """An id that means something to MQTT, to a path or to an ACL is refused by every check."""
    for check in (check_id, device_id, fleet_id, rollout_id):
        with pytest.raises(ValueError, match="expected 1 to 64"):
            check(text)
    with pytest.raises(ValidationError):
        TypeAdapter(IdText).validate_python(text)


@pytest.mark.parametrize("text", ["a", "0", "dev-1", "A_b-9", "a" * 64])
def test_plain_id_is_kept(text: str) -> None:
    """A plain id comes back as it is."""
    assert device_id(text) == text
    assert TypeAdapter(IdText).validate_python(text) == text


@given(st.text())
def test_accepted_ids_are_only_of_the_pattern(text: str) -> None:
    """Whatever the text, what is accepted consists of ASCII letters, digits, ``_`` and ``-``."""
    try:
        check_id(text)
    except ValueError:
        assert not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", text)
    else:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", text)


@pytest.mark.parametrize("text", ["1.0.0", "2026.11+build_7", "v1~rc1", "0"])
def test_version_is_kept(text: str) -> None:
    """Versions of the usual schemes are accepted."""
    assert check_version(text) == text
    assert TypeAdapter(VersionText).validate_python(text) == text


@pytest.mark.parametrize("text", ["", "..", "1..2", "a/b", "../x", "1 0", "1.0\n", "1" * 65], ids=repr)
def test_hostile_version_is_refused(text: str) -> None:
    """A version can not climb out of a directory or stand for two path segments."""
    with pytest.raises(ValueError, match="version"):
        check_version(text)


@pytest.mark.parametrize("text", ["", "ab", "A" * 64, "g" * 64, "0" * 65, "0" * 63 + "\n"], ids=repr)
def test_digest_has_one_form(text: str) -> None:
    """A digest is 64 lower-case hex digits and nothing else, so that one chunk has one topic."""
    with pytest.raises(ValueError, match="64 lower-case"):
        check_digest(text)
    with pytest.raises(ValidationError):
        TypeAdapter(DigestText).validate_python(text)


def test_release_name_reads_back() -> None:
    """A release name is written and read in one form, and names one target path."""
    name = ReleaseName.parse("gateway/1.1.0")
    assert (name.product, name.version) == ("gateway", "1.1.0")
    assert str(name) == "gateway/1.1.0"
    assert name.target_path == "gateway/1.1.0/manifest"


@pytest.mark.parametrize("text", ["gateway", "gateway/", "/1.0", "a/b/c", "a/../b", "+/1.0"])
def test_release_name_that_does_not_parse_says_how(text: str) -> None:
    """A name that is no release name is refused with the form that was expected."""
    with pytest.raises(ValueError, match="expected"):
        ReleaseName.parse(text)
