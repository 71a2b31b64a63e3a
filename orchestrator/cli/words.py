"""Words of the command line that are read the same way everywhere; what does not fit is a usage error."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from pydantic import ValidationError

from orchestrator.errors import UsageError
from orchestrator.model.plan import StageSpec
from orchestrator.model.units import read_seconds, read_share
from protocol.identifiers import ReleaseName, check_id

_SELECTOR = re.compile(r"[=!(]|\sin\s")


@contextmanager
def usage(what: str = "") -> Iterator[None]:
    """Turn a value that was refused into one sentence.

    Raises:
        UsageError: Names ``what`` and the place in it.
    """
    try:
        yield
    except ValidationError as error:
        raise UsageError(f"{what}: {_first(error)}" if what else _first(error)) from error
    except ValueError as error:
        raise UsageError(f"{what}: {error}" if what else str(error)) from error


def read_id(text: str, what: str) -> str:
    """An id; raises UsageError."""
    with usage():
        return check_id(text, what)


def read_ids(texts: Sequence[str], what: str) -> list[str]:
    """Ids, each once, in the order given; raises UsageError."""
    return list(dict.fromkeys(read_id(text, what) for text in texts))


def read_release(text: str) -> ReleaseName:
    """``product/version``; raises UsageError."""
    with usage():
        return ReleaseName.parse(text)


def read_duration(text: str, option: str) -> float:
    """Seconds of ``90``, ``90s``, ``15m``, ``2h`` or ``1d``; raises UsageError."""
    try:
        return read_seconds(text)
    except ValueError as error:
        raise UsageError(f"{option} {error}") from error


def read_ratio(text: str, option: str) -> float:
    """A share of ``0.95`` or ``95%``; raises UsageError."""
    try:
        return read_share(text)
    except ValueError as error:
        raise UsageError(f"{option} {error}") from error


def read_instant(text: str, option: str) -> datetime:
    """An instant with its zone, ISO 8601; raises UsageError."""
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise UsageError(f"{option} {text[:40]!r}: expected a time with its zone, such as 2026-12-01T03:00:00Z")
    return at


def read_stage(text: str) -> StageSpec:
    """``NAME=25%``, ``NAME=group:GROUP`` (or the group alone) or ``NAME=SELECTOR``; raises UsageError."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not value:
        raise UsageError(f"--stage {text[:80]!r}: expected NAME=25%, NAME=group:GROUP or NAME=SELECTOR")
    read: Callable[[], StageSpec]
    if value.endswith("%"):
        read = lambda: StageSpec(name=name, percent=_percent(value))  # noqa: E731
    elif value.startswith("group:"):
        read = lambda: StageSpec(name=name, group=value.removeprefix("group:"))  # noqa: E731
    elif _SELECTOR.search(value) or value.startswith("selector:"):
        read = lambda: StageSpec(name=name, selector=value.removeprefix("selector:"))  # noqa: E731
    else:
        read = lambda: StageSpec(name=name, group=value)  # noqa: E731
    with usage(f"--stage {text[:80]!r}"):
        return read()


def _percent(value: str) -> float:
    try:
        return float(value[:-1])
    except ValueError as error:
        raise ValueError(f"expected a percentage such as 25%, found {value[:40]!r}") from error


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False)
    place = ".".join(str(part) for part in found[0]["loc"])
    message, given = found[0]["msg"].removeprefix("Value error, "), found[0]["input"]
    if message.startswith("Input should be") and isinstance(given, int | float | str):
        message = f"{message.replace('Input should be', 'expected')}, found {str(given)[:40]}"
    if place and message.startswith(place):  # it names itself
        place = ""
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{place}: {message}{more}" if place else message + more
