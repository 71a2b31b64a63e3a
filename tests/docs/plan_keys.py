"""The tables of docs/reference/rollout-plan.md, from the model: ``python -m tests.docs.plan_keys`` writes them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from orchestrator.model.plan import RolloutSpec

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "rollout-plan.md"
BEGIN, END = "<!-- Made from the model: python -m tests.docs.plan_keys -->\n", "<!-- End of what is made -->\n"

UNITS = {
    "_bytes_per_hour": "bytes per hour, or `2 GB`",
    "_per_minute": "offers per minute",
    "ratio": "share, or `95%`",
    "_s": "seconds, or `15m`, `2h`, `1d`",
    "percent": "percent",
    "minutes": "minutes",
    "_at": "time with its zone, `2026-12-01T03:00:00Z`",
}
"""By the end of a key's name; the first that fits."""

MEANINGS = {
    "release": "`PRODUCT/VERSION`, published.",
    "members": "Who takes part. What is named must all hold; nothing named is every device that the release fits.",
    "members.group": "Devices of this group.",
    "members.selector": "Devices with these labels, product, hardware or versions: `site=lab,line in (1,2)`.",
    "members.devices": "These devices.",
    "members.dynamic": "Devices that come to fit later enter the last stage that has begun. Needs `end_at`.",
    "members.reverts": "Devices that this rollout updated and that ran the plan's release before; what "
    "`flagship rollout revert` writes.",
    "members.unhealthy": "With `reverts`: instead those that it left inconsistent, or that took too long or fell "
    "silent while being changed.",
    "stages": "In order; each opens when the one before it has passed.",
    "stages[].name": "Each has its own.",
    "stages[].group": "Members of this group.",
    "stages[].selector": "Members that it matches.",
    "stages[].percent": "Members by chance, up to this share of all members, earlier stages included; must rise. "
    "Exactly one of `group`, `selector`, `percent` and `devices`.",
    "stages[].devices": "These members.",
    "stages[].success_ratio": "Instead of the plan's.",
    "stages[].min_sample": "Instead of the plan's.",
    "stages[].soak_s": "Instead of the plan's.",
    "stages[].approval": "Instead of the plan's.",
    "stages[].halt_rules": "In addition to the plan's; their scope is the stage.",
    "success_ratio": "Share of a stage's finished devices that must succeed before the next one opens.",
    "min_sample": "Finished devices before that is judged; never more than the stage has.",
    "soak_s": "How long success must hold before the next stage opens.",
    "approval": "A person opens each next stage with `promote`.",
    "halt_ratio": "Share of a stage's finished devices whose failure halts the rollout.",
    "halt_min_sample": "Finished devices before that is judged; never more than the stage has.",
    "halt_count": "Failures in the whole rollout that halt it, whatever the share.",
    "halt_rules": "More rules that halt it; each has `ratio` or `count`.",
    "halt_rules[].classes": "Failures that count; all but `declined` unless named.",
    "halt_rules[].ratio": "Share of finished devices.",
    "halt_rules[].min_sample": "Finished devices before the share is judged.",
    "halt_rules[].count": "Devices, whatever the share.",
    "halt_rules[].scope": "Each stage by itself, or the rollout as a whole.",
    "on_halt": "What becomes of devices that were updated when a rule halts.",
    "pace_per_minute": "How fast devices are offered the release; without it as fast as they are ready.",
    "pace_growth": "The pace rises, from `pace_per_minute` on.",
    "pace_growth.factor": "By this much at each step.",
    "pace_growth.every": "Devices from step to step.",
    "pace_growth.of": "Which devices are counted.",
    "pace_growth.max_per_minute": "Up to this.",
    "site_bytes_per_hour": "Image bytes offered within any hour to devices with one value of the label `site`; at "
    "least one image.",
    "max_unavailable": "Limits on devices between activation and proof, over all rollouts that name the label.",
    "max_unavailable[].label": "For each value of this label by itself; devices without it count together.",
    "max_unavailable[].group": "For this group. Exactly one of the two.",
    "max_unavailable[].count": "At most so many devices.",
    "start_at": "Starts by itself then.",
    "end_at": "At most 365 days after the start.",
    "at_end": "What happens then. `stop`: no new offers, devices that have one go on. `halt`: as by a rule. `abort`: "
    "as by a person.",
    "timeouts": "How long a device may take before it counts as `timed_out`; without one, for ever.",
    "timeouts.queued_s": "Offered, and waiting to download or to install.",
    "timeouts.downloading_s": "From the first chunk to the last.",
    "timeouts.installing_s": "Until it verifies; waits before the activation do not count.",
    "timeouts.verifying_s": "Until the new version has proven itself.",
    "retries": "By failure class: how devices try again by themselves.",
    "retries.CLASS.times": "How often.",
    "retries.CLASS.backoff_s": "Before the first retry.",
    "retries.CLASS.factor": "How much longer each next wait is.",
    "retries.CLASS.max_backoff_s": "The longest wait.",
    "weight": "Of two rollouts for one device the heavier goes first; it preempts what has not begun to install.",
    "emergency": "Above every weight; skips soak, approvals and the plan's windows. Never a signature, nor what a "
    "device itself demands.",
    "needs_approval": "Another person than who submitted it approves it before it may start.",
    "policy": "What must hold on a device before it acts; the strictest of this, the release's and its own counts.",
    "policy.min_battery_percent": "Least charge when not on external power.",
    "policy.require_approval": "A person at the device must agree before installing.",
    "policy.allow_in_use": "Whether installing may interrupt use.",
    "policy.require_way_back": "The former version must be present and intact.",
    "policy.min_interval_s": "Least time between two updates of one device; a number.",
    "policy.windows": "One of them must be open, in the device's own time zone, to install and to activate.",
    "policy.windows[].days": "On which it begins; it may pass midnight.",
    "policy.windows[].start": "Wall time.",
    "policy.windows[].minutes": "How long it stays open.",
}


def tables() -> str:
    """One table for each level of the plan."""
    schema = RolloutSpec.model_json_schema()
    classes = {found.__name__: found for found in _models(RolloutSpec)}
    return "\n".join(_tables(schema, schema["$defs"], classes, "", "The plan"))


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for part in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _models(part)


def _parts(annotation: Any) -> Iterator[Any]:  # a type of Python, as ``typing`` has them
    """A type, and what it is made of: members of a union, what is annotated, and with what."""
    yield annotation
    for part in (*get_args(annotation), *(annotation.metadata if isinstance(annotation, FieldInfo) else ())):
        yield from _parts(part)


def _tables(
    model: dict[str, Any], models: dict[str, Any], classes: dict[str, type[BaseModel]], prefix: str, title: str
) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| key | what | default | bounds | meaning |\n|---|---|---|---|---|"
    inner: list[tuple[dict[str, Any], str]] = []
    for key, field in model["properties"].items():
        name = prefix + key
        what, bounds, found = _describe(field, models, key)
        bounds = bounds or ("" if found else _range(classes[model["title"]].model_fields[key]))
        inner += [(child, f"{name}{tail}.") for child, tail in found]
        default = "required" if key in model.get("required", []) else _default(field, found)
        yield f"| `{key}` | {what} | {default} | {bounds} | {MEANINGS[name]} |"
    yield ""
    for child, path in inner:
        if path != "stages[].halt_rules[].":  # as those of the plan
            yield from _tables(child, models, classes, path, f"`{path.rstrip('.')}`")


def _describe(
    field: dict[str, Any], models: dict[str, Any], key: str
) -> tuple[str, str, list[tuple[dict[str, Any], str]]]:
    """(what it is, its bounds, [(the model inside, what its path ends with)])."""
    field = next((one for one in field.get("anyOf", []) if one.get("type") != "null"), field)
    if "$ref" in field:
        target = models[field["$ref"].rpartition("/")[2]]
        if "enum" in target:
            return _choices(target), "", []
        return "keys below", "", [(target, "")]
    match field.get("type"):
        case "array":
            what, bounds, found = _describe(field["items"], models, "")
            most = field.get("maxItems")
            sizes = f"{field.get('minItems', 0)} to {most} of them" if most else ""
            each = [(child, f"[]{tail}") for child, tail in found]
            return f"list of {what}", "; ".join(text for text in (sizes, bounds) if text), each
        case "object":
            target = models[field["additionalProperties"]["$ref"].rpartition("/")[2]]
            return "keys by failure class", "", [(target, ".CLASS")]
        case "boolean":
            return "true or false", "", []
        case "string" if "enum" in field:
            return _choices(field), "", []
        case "string":
            unit = _unit(key) if field.get("format") == "date-time" else "text"
            longest = f"at most {field['maxLength']} characters" if "maxLength" in field else ""
            return unit, longest or ("an id" if "ID" in field.get("title", "") else ""), []
        case kind:
            unit = _unit(key)
            if kind == "integer" and key.endswith("_s"):
                unit = "seconds"
            return unit or ("whole number" if kind == "integer" else "number"), "", []


def _choices(field: dict[str, Any]) -> str:
    return ", ".join(f"`{choice}`" for choice in field["enum"])


def _unit(key: str) -> str:
    return next((unit for end, unit in UNITS.items() if key.endswith(end)), "")


def _range(field: FieldInfo) -> str:
    """The strictest bounds; a type that is annotated twice has several."""
    parts = [*_parts(field.annotation), *(inner for outer in field.metadata for inner in _parts(outer))]
    least: list[Any] = [part.ge for part in parts if isinstance(part, Ge)]
    above: list[Any] = [part.gt for part in parts if isinstance(part, Gt)]
    most: list[Any] = [part.le for part in parts if isinstance(part, Le)]
    found = [f"at least {_figure(max(least))}"] if least else []
    found += [f"above {_figure(max(above))}"] if above else []
    found += [f"at most {_figure(min(most))}"] if most else []
    return ", ".join(found)


def _figure(value: Any) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


def _default(field: dict[str, Any], found: list[tuple[dict[str, Any], str]]) -> str:
    value = field.get("default")
    match value:
        case bool():
            return str(value).lower()
        case None | []:
            return "-"
        case dict() if found:
            return "-"
        case list():
            return ", ".join(f"`{item}`" for item in sorted(value))
        case int() | float():
            return f"{value:g}" if value < 1000 else f"{value:.0f}"
        case _:
            return f"`{value}`"


def with_tables(page: str) -> str:
    """The page with its tables as they are now."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{tables()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
