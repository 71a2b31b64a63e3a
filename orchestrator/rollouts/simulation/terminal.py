"""A simulation as text: states over time, stages, rules. Eighty columns, no colour, printable characters only."""

from collections.abc import Iterator
from datetime import datetime

from orchestrator.rollouts.simulation.trace import BANDS, Sample, Trace

WIDTH, HEIGHT = 62, 12
_MARKS = {
    "succeeded": "#", "changing": "o", "fetched": "+", "downloading": "-", "waiting": ".", "other": "?", "failed": "x",
}  # fmt: skip
"""From the bottom to the top of a column."""
_NAME = 16


def draw(trace: Trace) -> str:
    """Lines for a terminal, the last without a line end."""
    return "\n".join([*_head(trace), "", *_chart(trace), "", *_stages(trace), "", *_rules(trace), *_happenings(trace)])


def span(seconds: float) -> str:
    """A time as people say it: ``45 s``, ``3.5 h``, ``2.1 d``."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _head(trace: Trace) -> Iterator[str]:
    rollout = trace.rollout
    state = rollout.state.value if rollout else "?"
    why = f": {rollout.reason}" if rollout and rollout.reason else ""
    yield f"{rollout.release if rollout else ''}  {state} after {span(trace.end_s)}{why}"
    last = trace.samples[-1].bands
    shown = ", ".join(f"{last[band]} {band}" for band in reversed(BANDS) if last[band])
    yield f"{trace.members} devices: {shown}; at most {trace.most_per_minute} offers in a minute"
    if trace.most_held:
        scope, most = max(trace.most_held.items(), key=lambda item: (item[1], item[0]))
        yield f"at most {most} unavailable at once ({scope})"


def _chart(trace: Trace) -> Iterator[str]:
    columns = [_column(_at(trace, trace.end_s * (n + 1) / WIDTH), trace.members) for n in range(WIDTH)]
    for row in range(HEIGHT - 1, -1, -1):
        label = (
            f"{trace.members * (row + 1) // HEIGHT:>9} " if row % 4 == HEIGHT % 4 - 1 or row == HEIGHT - 1 else " " * 10
        )
        yield f"{label}|{''.join(column[row] for column in columns)}"
    yield f"{' ' * 10}+{'-' * WIDTH}"
    middle, end = span(trace.end_s / 2), span(trace.end_s)
    yield f"{' ' * 11}0{middle:^{WIDTH - len(end) - 1}}{end}"
    yield "  ".join(f"{mark} {band}" for band, mark in _MARKS.items() if any(s.bands[band] for s in trace.samples))


def _at(trace: Trace, at_s: float) -> Sample:
    """The sample that holds at a time."""
    found = trace.samples[0]
    for sample in trace.samples:
        if sample.at_s > at_s:
            break
        found = sample
    return found


def _column(sample: Sample, members: int) -> str:
    """HEIGHT marks from the bottom up; what is there at all is shown, however few it is."""
    total = max(1, members)
    heights = {band: sample.bands[band] * HEIGHT / total for band in _MARKS}
    marks, drawn, reached = "", 0, 0.0
    for band, mark in _MARKS.items():
        reached += heights[band]
        upto = max(round(reached), drawn + 1) if heights[band] and band == "failed" else round(reached)
        marks += mark * (upto - drawn)
        drawn = max(drawn, upto)
    return marks[-HEIGHT:] if len(marks) > HEIGHT else marks.ljust(HEIGHT)


def _stages(trace: Trace) -> Iterator[str]:
    yield f"{'stage':<{_NAME}} devices  opened      passed      {'. pending  = open  ~ soaking  * passed'}"
    shown = trace.stages if len(trace.stages) <= MAX_STAGES else [*trace.stages[:MAX_STAGES]]
    for stage in shown:
        opened, soaking, passed = (_since(trace, at) for at in (stage.opened_at, stage.soaking_since, stage.passed_at))
        bar = "".join(_mark(trace.end_s * (n + 0.5) / BAR, opened, soaking, passed) for n in range(BAR))
        times = "".join(f"{span(at) if at is not None else '-':<12}" for at in (opened, passed))
        yield f"{stage.name[:_NAME]:<{_NAME}} {stage.members:>7}  {times}{bar}"
    if len(trace.stages) > MAX_STAGES:
        yield f"and {len(trace.stages) - MAX_STAGES} more stages"


MAX_STAGES, BAR = 12, 30


def _since(trace: Trace, at: datetime | None) -> float | None:
    return None if at is None else (at - trace.begin).total_seconds()


def _mark(at_s: float, opened: float | None, soaking: float | None, passed: float | None) -> str:
    if passed is not None and at_s >= passed:
        return "*"
    if soaking is not None and at_s >= soaking:
        return "~"
    return "=" if opened is not None and at_s >= opened else "."


def _rules(trace: Trace) -> Iterator[str]:
    for known in list(trace.figures.values())[:MAX_RULES]:
        figure = known[-1][1]
        yield f"{'met    ' if figure.met else 'not met'}  {figure.text}"


MAX_RULES, MAX_HAPPENINGS = 20, 24


def _happenings(trace: Trace) -> Iterator[str]:
    if trace.happenings:
        yield ""
    for one in trace.happenings[:MAX_HAPPENINGS]:
        yield f"{span(one.at_s):>8}  {one.text}"
    if len(trace.happenings) > MAX_HAPPENINGS:
        yield f"and {len(trace.happenings) - MAX_HAPPENINGS} more"
