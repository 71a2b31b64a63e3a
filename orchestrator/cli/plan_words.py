"""The options of a plan, for every command that takes one: said word by word, or read from a file with ``-f``."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.words import read_duration, read_instant, read_ratio, read_release, read_stage, usage
from orchestrator.errors import UsageError
from orchestrator.model.plan import Members, RolloutSpec, StageSpec
from protocol.manifest import Policy

EVERYONE = StageSpec(name="all", percent=100)
_BESIDE_A_FILE = ("file", "release")


def read_plan(
    *,
    release: Annotated[str, typer.Option(help="PRODUCT/VERSION, published; instead of the file's.")] = "",
    file: Annotated[
        Path | None, typer.Option("-f", "--file", help="The plan as YAML or JSON: docs/reference/rollout-plan.md.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="Members: devices of this group.")] = None,
    selector: Annotated[str | None, typer.Option(help="Members: site=lab,hardware!=rev-a,line in (1,2).")] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(help="NAME=25% of all members so far, NAME=group:GROUP or NAME=SELECTOR; repeat in order."),
    ] = None,
    success: Annotated[str, typer.Option(help="Share of finished devices that must succeed.")] = "0.95",
    min_sample: Annotated[int, typer.Option(min=1, help="Finished devices before success is judged.")] = 1,
    soak: Annotated[str, typer.Option(help="How long success must hold before the next stage: 90s, 15m, 2h.")] = "0s",
    halt: Annotated[str, typer.Option(help="Share of finished devices whose failure halts.")] = "0.1",
    halt_min_sample: Annotated[int, typer.Option(min=1, help="Finished devices before that is judged.")] = 3,
    halt_count: Annotated[int | None, typer.Option(min=1, help="Failures that halt, whatever the share.")] = None,
    pace: Annotated[float | None, typer.Option(help="Offers per minute; by default as fast as devices ask.")] = None,
    start_at: Annotated[str, typer.Option(help="Start by itself then: 2026-12-01T03:00:00Z.")] = "",
    min_battery: Annotated[int | None, typer.Option(min=0, max=100, help="Least charge in percent.")] = None,
    require_approval: Annotated[bool, typer.Option("--require-approval", help="A person there must agree.")] = False,
) -> RolloutSpec:
    """Read the plan that the words, or the file, describe.

    Raises:
        UsageError: They do not make a plan, or a file and words both say what it is.
        NotFoundError: There is no such file.
    """
    if file is not None:
        _check_alone(locals())
        from orchestrator.cli.plan_file import read_plan_file

        return read_plan_file(file, **({"release": str(read_release(release))} if release else {}))
    if not release:
        raise UsageError("--release: missing; name PRODUCT/VERSION, or give a plan with -f FILE")
    words: dict[str, Any] = {
        "release": str(read_release(release)),
        "members": _members(group, selector),
        "stages": [read_stage(text) for text in stage] if stage else [EVERYONE],
        "success_ratio": read_ratio(success, "--success"),
        "min_sample": min_sample,
        "soak_s": read_duration(soak, "--soak"),
        "halt_ratio": read_ratio(halt, "--halt"),
        "halt_min_sample": halt_min_sample,
        "halt_count": halt_count,
        "pace_per_minute": pace,
        "start_at": read_instant(start_at, "--start-at") if start_at else None,
        "policy": Policy(min_battery_percent=min_battery, require_approval=require_approval or None),
    }
    with usage():
        return RolloutSpec(**words)


_WORDS = signature(read_plan, eval_str=True).parameters


def takes_plan(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a plan; it is called with ``spec`` instead of them."""
    own = [word for word in signature(command, eval_str=True).parameters.values() if word.name != "spec"]

    @wraps(command)
    def run(**given: Any) -> None:  # noqa: ANN401 - values of options
        spec = read_plan(**{name: given.pop(name) for name in _WORDS})
        command(spec=spec, **given)

    words = [*_WORDS.values(), *own]
    made = Signature([word.replace(kind=Parameter.KEYWORD_ONLY) for word in words])
    run.__signature__ = made  # type: ignore[attr-defined]
    run.__annotations__ = {word.name: word.annotation for word in words}
    return run


def _check_alone(given: dict[str, Any]) -> None:
    """A plan that is said in two places is a slip in one of them."""
    said = [name for name, word in _WORDS.items() if name not in _BESIDE_A_FILE and given[name] != word.default]
    if said:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in said)
        raise UsageError(f"-f {given['file']}: the plan is in the file; leave out {options}, or write it there")


def _members(group: str | None, selector: str | None) -> Members:
    # An empty word is a shell variable that was not set: it must not come to mean the whole fleet.
    for option, text in (("--group", group), ("--selector", selector)):
        if text is not None and not text.strip():
            raise UsageError(f"{option} '': expected devices, found nothing; leave it out to mean every device")
    with usage():
        return Members(group=group, selector=selector)
