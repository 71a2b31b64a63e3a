"""The order of versions: Debian's, total, and the same by key as by comparison."""

import itertools
from functools import cmp_to_key

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.identifiers import VERSION_PATTERN, check_version
from protocol.versions import compare, order_key

VERSIONS = st.from_regex(VERSION_PATTERN, fullmatch=True).filter(lambda text: ".." not in text)
ALIKE = st.text(st.sampled_from("01a.~-+_"), max_size=6).map("1".__add__).filter(lambda text: ".." not in text)
"""Short ones of few characters: where two of them differ, they differ by a hair."""

ASCENDING = (
    "0.9",
    "1~",
    "1~a",
    "1",
    "1.0~beta1~svn1245",
    "1.0~beta1",
    "1.0~rc.2",
    "1.0~rc.10",
    "1.0",
    "1.0-1~bpo1",
    "1.0-1",
    "1.0-2",
    "1.0-10",
    "1.0-rc1",
    "1.0a",
    "1.0+git20261125",
    "1.0.1",
    "1.0_1",
    "1.2",
    "1.9.9",
    "1.10",
    "2",
    "10",
    "20261125",
    "A",
    "a",
    "v1.9",
    "v1.10",
)
EQUAL = (("1.0", "1.00"), ("1.0", "1.0-0"), ("1.0", "1.0-"), ("007", "7"), ("1.a", "1.a0"))


def sign(number: int) -> int:
    """-1, 0 or 1."""
    return (number > 0) - (number < 0)


@pytest.mark.parametrize(("older", "newer"), list(itertools.combinations(ASCENDING, 2)), ids=str)
def test_the_table(older: str, newer: str) -> None:
    """Every pair of a list in ascending order; each entry is a version that our formats take."""
    assert check_version(older)
    assert check_version(newer)
    assert compare(older, newer) < 0 < compare(newer, older)


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_different_texts_may_be_equal(one: str, other: str) -> None:
    """Leading zeros, and a revision that says nothing, make no newer version."""
    assert compare(one, other) == compare(other, one) == 0
    assert order_key(one) == order_key(other)


@given(VERSIONS | ALIKE, VERSIONS | ALIKE, VERSIONS | ALIKE)
def test_the_order_is_total(a: str, b: str, c: str) -> None:
    """Any two versions can be compared, the other way round says the opposite, and what follows from two holds."""
    assert compare(a, a) == 0
    assert sign(compare(a, b)) == -sign(compare(b, a))
    oldest, middle, newest = sorted((a, b, c), key=cmp_to_key(compare))
    assert compare(oldest, middle) <= 0
    assert compare(middle, newest) <= 0
    assert compare(oldest, newest) <= 0
    if compare(a, b) == 0:
        assert sign(compare(a, c)) == sign(compare(b, c))


@given(ALIKE, ALIKE)
def test_the_key_says_the_same(a: str, b: str) -> None:
    """Step by step as Debian's policy tells it, apart from how the key is made."""
    assert sign(compare(a, b)) == _by_the_policy(a, b)
    assert (order_key(a) < order_key(b)) == (compare(a, b) < 0)


@given(ALIKE)
def test_a_tilde_comes_before_the_end(version: str) -> None:
    """What is added after ``~`` is older; a letter or number that is added is not."""
    assert compare(version + "~1", version) < 0
    assert compare(version + "a", version) > 0
    assert compare(version + ".1", version) > 0


def _by_the_policy(a: str, b: str) -> int:
    """Debian Policy 5.6.12, to the letter: from the left, other characters and digits in turn, then the revision."""
    first, second = (text.rpartition("-") if "-" in text else (text, "", "") for text in (a, b))
    return _by_parts(first[0], second[0]) or _by_parts(first[2], second[2])


def _by_parts(a: str, b: str) -> int:
    while a or b:
        while (a and not a[0].isdigit()) or (b and not b[0].isdigit()):
            left, right = _rank(a), _rank(b)
            if left != right:
                return sign(left - right)
            a, b = a[1:], b[1:]
        left_digits, right_digits = ("".join(itertools.takewhile(str.isdigit, text)) for text in (a, b))
        if int(left_digits or 0) != int(right_digits or 0):
            return sign(int(left_digits or 0) - int(right_digits or 0))
        a, b = a[len(left_digits) :], b[len(right_digits) :]
    return 0


def _rank(text: str) -> int:
    if not text or text[0].isdigit():
        return 0
    return {"~": -1}.get(text[0], ord(text[0]) + (0 if text[0].isalpha() else 256))
