"""``flagship simulate``: a rollout's plan in virtual time, before any device hears of it. Needs no home."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.output import Format, FormatOption, show_json
from orchestrator.cli.plan_file import read_plan_file
from orchestrator.cli.words import read_duration
from orchestrator.errors import HaltedError, OperationError, UsageError
from orchestrator.model.failure import FailureClass
from orchestrator.model.rollout import RolloutState
from orchestrator.model.units import read_bytes
from orchestrator.rollouts.simulation.devices import MAX_DEVICES
from orchestrator.rollouts.simulation.habits import HOUR_S, MODELLED, Habits, Hours
from orchestrator.rollouts.simulation.svg import draw_svg
from orchestrator.rollouts.simulation.terminal import draw, span
from orchestrator.rollouts.simulation.trace import Trace
from orchestrator.rollouts.simulation.world import simulate as run

FIRST_S, EVERY_S = 5.0, 10.0


def simulate(
    plan: Annotated[Path, typer.Argument(help="A plan file, as for 'rollout create -f'.", show_default=False)],
    devices: Annotated[
        int, typer.Option(min=1, max=MAX_DEVICES, help="Of the fleet; the plan chooses among them.")
    ] = 1000,
    failure_rate: Annotated[
        list[str] | None, typer.Option(help="CLASS=SHARE of attempts, such as health=2%; repeat for more.")
    ] = None,
    offline: Annotated[str, typer.Option(help="Share of the time that a device has no link.")] = "5%",
    in_use: Annotated[str, typer.Option(help="Share of devices that people use from 8 to 18, local time.")] = "0%",
    night_off: Annotated[str, typer.Option(help="Share of devices that are switched off from 22 to 6.")] = "0%",
    unready: Annotated[str, typer.Option(help="Share of readiness reports that say no.")] = "5%",
    sites: Annotated[int, typer.Option(min=1, max=100_000, help="Values of the label site.")] = 20,
    zone: Annotated[list[float] | None, typer.Option(help="Hours east of UTC; repeat for more.")] = None,
    image: Annotated[str, typer.Option(help="Size of what a device fetches.")] = "100 MB",
    rate: Annotated[str, typer.Option(help="Of a device's link, per second, in the median.")] = "1 MB",
    seed: Annotated[int, typer.Option(help="Same plan, same words, same seed: same trace.")] = 1,
    until: Annotated[str, typer.Option(help="Leave it after this long: 12h, 7d.")] = "7d",
    svg: Annotated[Path | None, typer.Option(help="Draw it into this file, too.")] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Run a plan with the real engine against modelled devices; exit code 0 if it completed, 6 if it halted."""
    spec = read_plan_file(plan)
    window = spec.policy.windows[0] if spec.policy.windows and not spec.emergency else None
    hour, minute = (int(part) for part in window.start.split(":")) if window else (0, 0)
    start_s = hour * HOUR_S + minute * 60
    habits = Habits(
        failures=_failures(failure_rate or []),
        offline=_share(offline, "--offline", most=0.95),
        in_use=_share(in_use, "--in-use"),
        off_at_night=_share(night_off, "--night-off"),
        unready=_share(unready, "--unready"),
        window=Hours(start_s, start_s + window.minutes * 60) if window else None,
        sites=sites,
        zones_h=tuple(_zone(one) for one in zone or [0.0]),
        image_bytes=_size(image, "--image"),
        rate_bytes_s=float(_size(rate, "--rate")),
    )
    trace = run(spec, devices, habits, seed=seed, until_s=read_duration(until, "--until"), tell=Progress())
    if svg is not None:
        try:
            svg.write_text(draw_svg(trace), encoding="utf-8")
        except OSError as error:
            raise OperationError(f"{svg}: cannot be written: {error.strerror or error}") from error
    if output is Format.JSON:
        show_json(as_json(trace))
    else:
        sys.stdout.write(draw(trace) + f"\n\ntrace {trace.digest}\n")
        sys.stdout.flush()
    rollout = trace.rollout
    if rollout is not None and rollout.state in (RolloutState.HALTED, RolloutState.ABORTED):
        raise HaltedError(f"the simulated rollout was {rollout.state}: {rollout.reason}")


class Progress:
    """Says on standard error how far a simulation is that takes longer than ``FIRST_S``; one line, every so often."""

    def __init__(self) -> None:
        self._next = time.monotonic() + FIRST_S

    def __call__(self, at_s: float) -> None:
        """Simulated so far: virtual seconds."""
        if (now := time.monotonic()) >= self._next:
            self._next = now + EVERY_S
            sys.stderr.write(f"simulated {span(at_s)}\n")
            sys.stderr.flush()


def as_json(trace: Trace) -> dict[str, Any]:
    """Everything that is drawn, as figures."""
    rollout = trace.rollout
    return {
        "release": rollout.release if rollout else "",
        "state": rollout.state if rollout else "",
        "reason": rollout.reason if rollout else "",
        "members": trace.members,
        "end_s": round(trace.end_s, 3),
        "states": {band: number for band, number in trace.samples[-1].bands.items() if number},
        "over_time": [{"at_s": round(sample.at_s, 3), **sample.bands} for sample in trace.samples],
        "stages": [
            {
                "name": stage.name,
                "state": stage.state,
                "members": stage.members,
                **{
                    f"{name}_s": None if at is None else (at - trace.begin).total_seconds()
                    for name, at in (("opened", stage.opened_at), ("passed", stage.passed_at))
                },
            }
            for stage in trace.stages
        ],
        "rules": {name: known[-1][1].model_dump(mode="json") for name, known in trace.figures.items()},
        "happenings": [{"at_s": round(one.at_s, 3), "kind": one.kind, "text": one.text} for one in trace.happenings],
        "most_offers_in_a_minute": trace.most_per_minute,
        "most_unavailable": dict(sorted(trace.most_held.items(), key=lambda item: (-item[1], item[0]))[:20]),
        "looks": trace.looks,
        "reports": trace.reports,
        "trace": trace.digest,
    }


def _failures(texts: list[str]) -> dict[FailureClass, float]:
    found: dict[FailureClass, float] = {}
    for text in texts:
        for part in text.split(","):
            name, equals, share = (word.strip() for word in part.partition("="))
            known = {kind.value: kind for kind in MODELLED}
            if not equals or name not in known:
                raise UsageError(
                    f"--failure-rate {part[:40]!r}: expected CLASS=SHARE such as health=2%, "
                    f"with a class of {', '.join(known)}"
                )
            found[known[name]] = _share(share, f"--failure-rate {name}")
    if sum(found.values()) > 1:
        raise UsageError(f"--failure-rate: the shares add up to {sum(found.values()):.0%}, expected at most 100%")
    return found


def _share(text: str, option: str, *, most: float = 1.0) -> float:
    number = text.strip()
    try:
        share = float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        share = -1.0
    if not 0 <= share <= most:
        raise UsageError(f"{option} {text[:40]!r}: expected a share from 0 to {most:g}, such as 0.05 or 5%")
    return share


def _zone(hours: float) -> float:
    if not -12 <= hours <= 14:
        raise UsageError(f"--zone {hours:g}: expected hours east of UTC, from -12 to 14")
    return hours


def _size(text: str, option: str) -> int:
    try:
        size = read_bytes(text)
    except ValueError as error:
        raise UsageError(f"{option} {error}") from error
    if not size:
        raise UsageError(f"{option} {text[:40]!r}: expected more than nothing")
    return size
