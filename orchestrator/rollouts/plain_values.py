"""Dataclasses to JSON values and back, by their types alone: what is added to them later needs nothing here. Pure.

A field that is missing takes its default, and one that is not known is left out: what an earlier or a later version
wrote can be read.
"""

import types
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel


def to_plain(value: object) -> Any:  # noqa: ANN401 - JSON
    """JSON values; instants as RFC 3339, durations in seconds.

    Raises:
        TypeError: There is no JSON for it.
    """
    match value:
        case None | bool() | int() | float() | str() if not isinstance(value, Enum):
            return value
        case Enum():
            return to_plain(value.value)
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case BaseModel():
            return value.model_dump(mode="json")
        case Mapping():
            return {_key(key): to_plain(item) for key, item in value.items()}
        case AbstractSet():
            return sorted((to_plain(item) for item in value), key=repr)
        case Sequence():
            return [to_plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"no JSON for a {type(value).__name__}")


def from_plain(hint: Any, value: Any) -> Any:  # noqa: ANN401 - as the hint says
    """The value of type ``hint`` of which ``to_plain`` made ``value``.

    Raises:
        ValueError: It does not have that form.
    """
    try:
        return _from_plain(hint, value)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"expected {getattr(hint, '__name__', hint)}: {error}") from error


def _from_plain(hint: Any, value: Any) -> Any:  # noqa: ANN401
    hint = getattr(hint, "__supertype__", hint)  # NewType
    if hint is Any or hint is object:
        return value
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        return _first_that_fits(arguments, value)
    if origin is Literal:
        return value
    if hasattr(hint, "__metadata__"):  # Annotated
        return _from_plain(arguments[0], value)
    if origin is not None:
        return _container(origin, arguments, value)
    if is_dataclass(hint):
        return _dataclass(hint, value)
    return _single(hint, value)


def _single(hint: Any, value: Any) -> Any:  # noqa: ANN401
    if hint is None or hint is types.NoneType:
        if value is not None:
            raise ValueError("expected null")
        return None
    if issubclass(hint, BaseModel):
        return hint.model_validate(value)
    if issubclass(hint, Enum):
        return hint(value)
    if hint is datetime:
        return datetime.fromisoformat(value)
    if hint is timedelta:
        return timedelta(seconds=value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is int):
        raise ValueError(f"expected {hint.__name__}, found {type(value).__name__}")
    return value


def _container(origin: Any, arguments: tuple[Any, ...], value: Any) -> Any:  # noqa: ANN401
    if issubclass(origin, Mapping):
        key, item = arguments
        return {_read_key(key, k): _from_plain(item, v) for k, v in value.items()}
    if not isinstance(value, list):
        raise ValueError(f"expected a list, found {type(value).__name__}")
    if issubclass(origin, tuple) and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        return tuple(_from_plain(one, v) for one, v in zip(arguments, value, strict=True))
    items = [_from_plain(arguments[0], v) for v in value]
    if issubclass(origin, tuple):
        return tuple(items)
    return frozenset(items) if issubclass(origin, AbstractSet) else items


def _dataclass(hint: Any, value: Any) -> Any:  # noqa: ANN401
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {type(value).__name__}")
    hints, found = _hints(hint), {}
    for field in fields(hint):
        if field.name in value:
            found[field.name] = _from_plain(hints[field.name], value[field.name])
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{hint.__name__}: {field.name} is missing")
    return hint(**found)


def _first_that_fits(hints: Sequence[Any], value: Any) -> Any:  # noqa: ANN401
    for hint in hints:
        try:
            return _from_plain(hint, value)
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    raise ValueError("fits none of the types that it may have")


@cache
def _hints(kind: Any) -> dict[str, Any]:  # noqa: ANN401
    return get_type_hints(kind, include_extras=True)


def _key(key: object) -> str:
    plain = to_plain(key)
    if isinstance(plain, str):
        return plain
    if isinstance(plain, int) and not isinstance(plain, bool):
        return str(plain)
    raise TypeError(f"no JSON key for a {type(key).__name__}")


def _read_key(hint: Any, key: str) -> Any:  # noqa: ANN401
    return int(key) if hint is int else _from_plain(hint, key)
