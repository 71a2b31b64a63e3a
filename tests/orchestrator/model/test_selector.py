"""The selector language: a table of texts, what each matches, and where a bad one is wrong."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import UsageError
from orchestrator.model.device import Device
from orchestrator.model.selector import MAX_LENGTH, Operator, Selector, Term, reader

DEVICE = Device(
    id="d1",
    product="gateway",
    hardware="rev-a",
    components={"os": "1.1.0", "app": "2.0.0+b~1"},
    labels={"site": "lab", "line": "3"},
)


@pytest.mark.parametrize(
    ("text", "normal", "matches"),
    [
        ("site=lab", "site=lab", True),
        ("site=plant", "site=plant", False),
        ("site!=lab", "site!=lab", False),
        ("site != plant", "site!=plant", True),
        ("nothing!=at-all", "nothing!=at-all", True),
        ("nothing=at-all", "nothing=at-all", False),
        ("nothing in (at-all)", "nothing in (at-all)", False),
        ("line in (1,2,3)", "line in (1,2,3)", True),
        ("line in(1,2)", "line in (1,2)", False),
        ("  line   in ( 1 ,\t3 ) ", "line in (1,3)", True),
        ("site=lab,line=3", "site=lab,line=3", True),
        ("site=lab , line=4", "site=lab,line=4", False),
        ("id in (d1,d2)", "id in (d1,d2)", True),
        ("product=gateway,hardware!=rev-b", "product=gateway,hardware!=rev-b", True),
        ("component.os=1.1.0", "component.os=1.1.0", True),
        ("component.app=2.0.0+b~1", "component.app=2.0.0+b~1", True),
        ("component.firmware!=1.0.0", "component.firmware!=1.0.0", True),
        ("in in (in)", "in in (in)", False),
    ],
)
def test_what_a_selector_means(text: str, normal: str, matches: bool) -> None:
    """Spaces mean nothing; every term must hold; a device without the label differs from every value."""
    selector = Selector.parse(text)
    assert str(selector) == normal
    assert selector.matches(DEVICE) is matches


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("", 1, "a key such as"),
        ("   ", 4, "a key such as"),
        ("=lab", 1, "a key such as"),
        ("site", 5, "'=', '!=' or 'in'"),
        ("site inside", 6, "'=', '!=' or 'in'"),
        ("site==lab", 6, "a value"),
        ("site=", 6, "a value"),
        ("site=la b", 9, "',' or the end"),
        ("site=lab;line=3", 9, "',' or the end"),
        ("site=lab,", 10, "a key such as"),
        ("site in lab", 9, "'('"),
        ("site in ()", 10, "a value"),
        ("site in (a", 11, "',' or ')'"),
        ("site in (a b)", 12, "',' or ')'"),
        ("site in (a,)", 12, "a value"),
        ("site in (a))", 12, "',' or the end"),
        ("site='lab'", 6, "a value"),
        ("sité=lab", 4, "'=', '!=' or 'in'"),
        ("site=" + "x" * 65, 70, "',' or the end"),
    ],
)
def test_where_a_selector_is_wrong(text: str, place: int, expected: str) -> None:
    """The sentence names the character, what was expected there, and an example."""
    with pytest.raises(UsageError) as refused:
        Selector.parse(text)
    sentence = str(refused.value)
    assert f"at character {place} expected {expected}" in sentence
    assert sentence.endswith("write terms such as site=lab,hardware!=rev-a,line in (1,2)")


def test_the_length_is_bounded() -> None:
    """In its normal form as well: what is stored is read again."""
    with pytest.raises(UsageError, match="at most 4096 characters, found 4097"):
        Selector.parse("a" * (MAX_LENGTH + 1))
    text = ",".join(["a in(b)"] * 512)
    assert len(text) <= MAX_LENGTH
    with pytest.raises(UsageError, match="at most 4096 characters, found 4607"):
        Selector.parse(text)


_KEYS = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,20}\Z")
_VALUES = st.from_regex(r"\A[A-Za-z0-9_.+~:-]{1,64}\Z")
_TERMS = st.one_of(
    st.builds(Term, _KEYS, st.sampled_from([Operator.EQUAL, Operator.NOT_EQUAL]), st.tuples(_VALUES)),
    st.builds(Term, _KEYS, st.just(Operator.IN), st.lists(_VALUES, min_size=1, max_size=5).map(tuple)),
)


@given(st.lists(_TERMS, min_size=1, max_size=8))
def test_a_selector_reads_what_it_writes(terms: list[Term]) -> None:
    """Every selector has one text, and that text means that selector."""
    selector = Selector(tuple(terms))
    assert Selector.parse(str(selector)) == selector


@given(st.text(alphabet="ab1=!,() in\t.-_'\"é", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """There is no third way; what is read is stable."""
    try:
        selector = Selector.parse(text)
    except UsageError:
        return
    assert Selector.parse(str(selector)) == selector


@given(_TERMS, st.dictionaries(_KEYS, _VALUES, max_size=5))
def test_not_equal_is_the_opposite_of_equal(term: Term, labels: dict[str, str]) -> None:
    """For every device, labelled or not."""
    device = Device(id="d1", product="p", hardware="h", labels=labels)
    values: dict[str, Any] = {"key": term.key, "values": term.values[:1]}
    equal = Term(operator=Operator.EQUAL, **values).matches(device)
    assert Term(operator=Operator.NOT_EQUAL, **values).matches(device) is not equal
    assert Term(operator=Operator.IN, **values).matches(device) is equal


KEYED = Device(
    id="d1",
    product="gateway",
    hardware="rev-a",
    components={"os": "1.1.0"},
    labels={"site": "lab", "id": "not-this", "product": "nor-this"},
)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", "d1"),
        ("product", "gateway"),
        ("hardware", "rev-a"),
        ("component.os", "1.1.0"),
        ("component.app", None),
        ("component.", None),
        ("site", "lab"),
        ("os", None),
    ],
)
def test_what_a_key_stands_for(key: str, value: str | None) -> None:
    """Identity first: a label named ``id`` does not make a device another one."""
    assert reader(key)(KEYED) == value
