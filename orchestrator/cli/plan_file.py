"""A plan as a file, YAML or JSON: read with care, and every complaint with its place and line.

Only what JSON has is taken from YAML: no tags, no anchors, and ``yes``, dates or ``12:30`` stay text. A key that is
named twice or is not known is refused, so that a misspelt rule is not a missing one.
"""

import difflib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from orchestrator.errors import NotFoundError, UsageError
from orchestrator.model.plan import RolloutSpec

MAX_BYTES = 1 << 20
_Key = tuple[str | int, ...]
"""A place in the plan: keys and positions from the outside in."""
_Lines = dict[_Key, int]
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?([eE][-+]?[0-9]{1,3})?\Z")
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}
_PLAIN = "tag:yaml.org,2002:"
# The loader in C is a hundred times as quick, but not in every build of PyYAML.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_plan_file(path: Path, **instead: Any) -> RolloutSpec:  # noqa: ANN401 - values of the plan
    """Read a plan.

    Args:
        path: ``.json``, or anything else for YAML.
        instead: Values that stand in the place of the file's.

    Raises:
        NotFoundError: There is no such file.
        UsageError: It is too large, cannot be parsed, or is no plan; names the place, and the line where it is known.
    """
    text = _read(path)
    lines: _Lines = {}
    try:
        value = _parse_json(text) if path.suffix.lower() == ".json" else _parse_yaml(text, lines)
    except RecursionError as error:
        raise UsageError(f"{path}: is nested too deeply for a plan") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path}{_where(error)}: {_what(error)}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: expected keys such as release and stages, found {_kind(value)}")
    try:
        return RolloutSpec.model_validate({**value, **instead})
    except ValidationError as error:
        raise UsageError(_explain(path, error, lines)) from error


def _read(path: Path) -> str:
    try:
        with path.open("rb") as source:
            data = source.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: there is no such file") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path}: expected a plan of at most {MAX_BYTES >> 20} MiB, found more")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: expected text in UTF-8; byte {error.start} is none") from error


class _NoPlanError(ValueError):
    """Something that a plan does not have, at a line."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


def _parse_json(text: str) -> Any:  # noqa: ANN401
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key[:60]!r} is there twice; keep one")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:  # noqa: ANN401
    raise ValueError(f"{name} is no figure of a plan")


def _parse_yaml(text: str, lines: _Lines) -> Any:  # noqa: ANN401
    documents = yaml.compose_all(text, Loader=_LOADER)
    node, more = next(documents, None), next(documents, None)
    if more is not None:
        raise _NoPlanError(_line(more), "a second document begins here; a file holds one plan")
    return None if node is None else _value(node, (), lines, set())


def _value(node: yaml.Node, place: _Key, lines: _Lines, seen: set[int]) -> Any:  # noqa: ANN401
    """What a node says. Seen twice is an alias: a few lines of them can stand for more than memory holds."""
    if id(node) in seen:
        raise _NoPlanError(_line(node), "anchors and aliases (&, *) are not for plans; write it out")
    seen.add(id(node))
    lines[place] = _line(node)
    match node:
        case yaml.MappingNode():
            return dict(_entries(node, place, lines, seen))
        case yaml.SequenceNode():
            return [_value(item, (*place, n), lines, seen) for n, item in enumerate(node.value)]
        case yaml.ScalarNode():
            return _scalar(node)
    raise _NoPlanError(_line(node), "is nothing that a plan has")


def _entries(node: yaml.MappingNode, place: _Key, lines: _Lines, seen: set[int]) -> Iterator[tuple[str, Any]]:
    keys: set[str] = set()
    for name, value in node.value:
        if not isinstance(name, yaml.ScalarNode):
            raise _NoPlanError(_line(name), "a key is one word")
        key = str(name.value)
        if key in keys:
            raise _NoPlanError(_line(name), f"key {key[:60]!r} is there twice; keep one")
        keys.add(key)
        found = _value(value, (*place, key), lines, seen)
        lines[*place, key] = _line(name)
        yield key, found


def _scalar(node: yaml.ScalarNode) -> Any:  # noqa: ANN401
    text = str(node.value)
    if not str(node.tag).startswith(_PLAIN) or node.tag == f"{_PLAIN}binary":
        raise _NoPlanError(_line(node), f"tag {str(node.tag)[:60]!r}: tags are not for plans")
    if node.style:  # it is quoted
        return text
    if text in _WORDS:
        return _WORDS[text]
    if not _NUMBER.match(text):
        return text
    number = float(text)
    return int(text) if re.fullmatch(r"-?\d+", text) else number if math.isfinite(number) else text


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _where(error: Exception) -> str:
    match error:
        case _NoPlanError():
            return f":{error.line}"
        case json.JSONDecodeError():
            return f":{error.lineno}"
        case yaml.MarkedYAMLError() if error.problem_mark is not None:
            return f":{error.problem_mark.line + 1}"
        case _:
            return ""


def _what(error: Exception) -> str:
    match error:
        case json.JSONDecodeError():
            return f"cannot be read as JSON: {error.msg}"
        case yaml.MarkedYAMLError():
            return f"cannot be read as YAML: {error.problem or error.context}"
        case yaml.YAMLError():
            return f"cannot be read as YAML: {' '.join(str(error).split())[:200]}"
        case _:
            return str(error)


def _explain(path: Path, error: ValidationError, lines: _Lines) -> str:
    found = error.errors(include_url=False)
    place: _Key = tuple(found[0]["loc"])
    message = found[0]["msg"].removeprefix("Value error, ")
    if found[0]["type"] == "extra_forbidden":
        message = f"unknown key; {_nearest(place)}"
    elif message.startswith("Input should be"):
        given = found[0]["input"]
        what = repr(given)[:60] if isinstance(given, str | int | float) else _kind(given)
        message = f"{message.replace('Input should be', 'expected')}, found {what}"
    line = next((lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in lines), 0)
    where = f"{path}:{line}" if line else str(path)
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{where}: {name}: {message}{more}" if name else f"{where}: {message}{more}"


def _nearest(place: _Key) -> str:
    """What was probably meant, or what there is."""
    model: type[BaseModel] = RolloutSpec
    for part in place[:-1]:
        field = model.model_fields.get(str(part))
        model = (_model_in(field.annotation) if field else None) or model
    known = sorted(model.model_fields)
    close = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _kind(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case dict():
            return "keys with values"
        case list():
            return "a list"
        case _:
            return f"{str(value)[:60]!r}"
