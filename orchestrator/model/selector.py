"""Which devices: ``site=lab, hardware in (rev-a,rev-b), component.os!=1.1.0``.

Terms are joined by commas and all must hold. Keys are labels, or ``id``, ``product``, ``hardware`` and
``component.NAME`` (its version). A device without the label differs from every value.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Protocol

from orchestrator.errors import UsageError

MAX_LENGTH = 4096
_SPACE = re.compile(r"\s*")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_VALUE = re.compile(r"[A-Za-z0-9_.+~:-]{1,64}")
_OPERATOR = re.compile(r"!=|=|in\b")


class Selectable(Protocol):
    """What a selector looks at: a ``Device``, or a ``Candidate``."""

    @property
    def id(self) -> str:
        """Its name."""
        ...

    @property
    def product(self) -> str:
        """What it is."""
        ...

    @property
    def hardware(self) -> str:
        """Which revision of it."""
        ...

    @property
    def components(self) -> Mapping[str, str]:
        """Component -> version."""
        ...

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels by name."""
        ...


Reader = Callable[[Selectable], str | None]
Test = Callable[[Selectable], bool]


class Operator(StrEnum):
    """How a term compares."""

    EQUAL = "="
    NOT_EQUAL = "!="
    IN = "in"


@dataclass(frozen=True, slots=True)
class Term:
    """One condition; ``values`` has one entry unless the operator is ``in``."""

    key: str
    operator: Operator
    values: tuple[str, ...]

    def matches(self, device: Selectable) -> bool:
        """Whether the device fulfils this term."""
        return self.compiled()(device)

    def compiled(self) -> Test:
        """A function that says whether a device fulfils this term; for use on many."""
        read, values, one = reader(self.key), frozenset(self.values), self.values[0]
        match self.operator:
            case Operator.EQUAL:
                return lambda device: read(device) == one
            case Operator.NOT_EQUAL:
                return lambda device: read(device) != one
            case Operator.IN:
                return lambda device: read(device) in values

    def __str__(self) -> str:
        if self.operator is Operator.IN:
            return f"{self.key} in ({','.join(self.values)})"
        return f"{self.key}{self.operator}{self.values[0]}"


@dataclass(frozen=True, slots=True)
class Selector:
    """A parsed selector."""

    terms: tuple[Term, ...]

    @classmethod
    def parse(cls, text: str) -> "Selector":
        """Read a selector.

        Raises:
            UsageError: It does not parse; says where and what was expected.
        """
        _check_length(text)
        selector = cls(tuple(_Text(text).terms()))
        _check_length(str(selector))  # what is stored must be read again, and "in(" is written as "in ("
        return selector

    def matches(self, device: Selectable) -> bool:
        """Whether the device fulfils every term."""
        return self.compiled()(device)

    def compiled(self) -> Test:
        """A function that says whether a device fulfils every term; for use on many."""
        tests = [term.compiled() for term in self.terms]
        if len(tests) == 1:
            return tests[0]
        return lambda device: all(test(device) for test in tests)

    def __str__(self) -> str:
        return ",".join(str(term) for term in self.terms)


def reader(key: str) -> Reader:
    """A function that reads what a key stands for; None where the device has no such thing."""
    if key in ("id", "product", "hardware"):
        return attrgetter(key)
    if key.startswith("component."):
        name = key.removeprefix("component.")
        return lambda device: device.components.get(name)
    return lambda device: device.labels.get(key)


def _check_length(text: str) -> None:
    if len(text) > MAX_LENGTH:
        raise UsageError(f"selector: at most {MAX_LENGTH} characters, found {len(text)}")


class _Text:
    """Reads terms from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def terms(self) -> list[Term]:
        found = [self._term()]
        while not self._ended():
            self._literal(",", "',' or the end")
            found.append(self._term())
        return found

    def _term(self) -> Term:
        key = self._match(_KEY, "a key such as site, product or component.os")
        operator = Operator(self._match(_OPERATOR, "'=', '!=' or 'in'"))
        if operator is not Operator.IN:
            return Term(key, operator, (self._match(_VALUE, "a value"),))
        self._literal("(", "'('")
        values = [self._match(_VALUE, "a value")]
        while not self._peek(")"):
            self._literal(",", "',' or ')'")
            values.append(self._match(_VALUE, "a value"))
        self._literal(")", "')'")
        return Term(key, operator, tuple(values))

    def _match(self, pattern: re.Pattern[str], expected: str) -> str:
        self._skip()
        found = pattern.match(self.text, self.at)
        if not found:
            raise self._wrong(expected)
        self.at = found.end()
        return found[0]

    def _literal(self, literal: str, expected: str) -> None:
        if not self._peek(literal):
            raise self._wrong(expected)
        self.at += len(literal)

    def _peek(self, literal: str) -> bool:
        self._skip()
        return self.text.startswith(literal, self.at)

    def _ended(self) -> bool:
        self._skip()
        return self.at == len(self.text)

    def _skip(self) -> None:
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def _wrong(self, expected: str) -> UsageError:
        rest = self.text[self.at : self.at + 20]
        found = repr(rest) if rest else "the end"
        return UsageError(
            f"selector {self.text[:200]!r}: at character {self.at + 1} expected {expected}, found {found}; "
            "write terms such as site=lab,hardware!=rev-a,line in (1,2)"
        )
