"""A simulation as a picture: states over time, stages as bars, rules with their limits. Same trace, same bytes."""

from collections.abc import Iterator
from datetime import datetime
from xml.sax.saxutils import escape

from orchestrator.rollouts.simulation.terminal import span
from orchestrator.rollouts.simulation.trace import Trace
from protocol.status_messages import RuleFigure

_LEFT, _WIDTH, _TOP, _HEIGHT, _ROW = 90, 760, 60, 260, 18
_COLOURS = {
    "succeeded": "#2e7d32", "changing": "#f9a825", "fetched": "#5c6bc0", "downloading": "#29b6f6",
    "waiting": "#b0bec5", "other": "#8d6e63", "failed": "#c62828",
}  # fmt: skip
_STAGE = {"open": "#29b6f6", "soaking": "#f9a825", "passed": "#2e7d32"}
_STYLE = (
    "text{font:12px sans-serif;fill:#222}.axis{stroke:#888}.bg{fill:#fff}.limit{stroke:#c62828;stroke-dasharray:4 3}"
    ".share{fill:none;stroke:#5c6bc0;stroke-width:1.5}"
    "@media(prefers-color-scheme:dark){text{fill:#eee}.bg{fill:#1b1b1b}.axis{stroke:#999}}"
)
MAX_STAGES, MAX_RULES = 40, 12


def draw_svg(trace: Trace) -> str:
    """An SVG document."""
    stages, rules = trace.stages[:MAX_STAGES], list(trace.figures.items())[:MAX_RULES]
    rules_top = _TOP + _HEIGHT + 60 + _ROW * (len(stages) + 1)
    height = rules_top + 60 * len(rules) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 30} {height}" role="img">',
        f"<title>{escape(_title(trace))}</title><style>{_STYLE}</style>",
        f'<rect class="bg" width="{_LEFT + _WIDTH + 30}" height="{height}"/>',
        _text(_LEFT, 22, _title(trace)),
        *_legend(),
        *_areas(trace),
        *_axes(trace),
        *_bars(trace),
        *(part for n, (name, known) in enumerate(rules) for part in _rule(trace, rules_top + 60 * n, name, known)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _title(trace: Trace) -> str:
    rollout = trace.rollout
    if rollout is None:
        return "simulation"
    return f"{rollout.release}: {rollout.state} after {span(trace.end_s)}, {trace.members} devices"


def _x(trace: Trace, at_s: float) -> float:
    return round(_LEFT + _WIDTH * min(1.0, at_s / max(trace.end_s, 1e-9)), 1)


def _text(x: float, y: float, words: str, *, end: bool = False) -> str:
    anchor = ' text-anchor="end"' if end else ""
    return f'<text x="{x:g}" y="{y:g}"{anchor}>{escape(words)}</text>'


def _legend() -> Iterator[str]:
    for n, (band, colour) in enumerate(_COLOURS.items()):
        x = _LEFT + n * 105
        yield f'<rect x="{x}" y="32" width="12" height="12" fill="{colour}"/>'
        yield _text(x + 16, 43, band)


def _areas(trace: Trace) -> Iterator[str]:
    """One band on the other, from what is done upwards."""
    total = max(1, trace.members)
    floor = [0.0] * len(trace.samples)
    xs = [_x(trace, sample.at_s) for sample in trace.samples]
    for band, colour in _COLOURS.items():
        top = [low + sample.bands[band] / total for low, sample in zip(floor, trace.samples, strict=True)]
        if top != floor:
            points = [*zip(xs, top, strict=True), *reversed(list(zip(xs, floor, strict=True)))]
            path = " ".join(f"{x:g},{_TOP + _HEIGHT * (1 - share):.1f}" for x, share in points)
            yield f'<polygon points="{path}" fill="{colour}"><title>{band}</title></polygon>'
        floor = top


def _axes(trace: Trace) -> Iterator[str]:
    bottom = _TOP + _HEIGHT
    yield f'<path class="axis" d="M{_LEFT},{_TOP}V{bottom}H{_LEFT + _WIDTH}" fill="none"/>'
    for n in range(5):
        yield _text(_LEFT - 6, bottom - _HEIGHT * n / 4 + 4, f"{trace.members * n // 4}", end=True)
        yield _text(_LEFT + _WIDTH * n / 4, bottom + 16, span(trace.end_s * n / 4) if n else "0")


def _bars(trace: Trace) -> Iterator[str]:
    top = _TOP + _HEIGHT + 36
    for n, stage in enumerate(trace.stages[:MAX_STAGES]):
        y = top + n * _ROW
        yield _text(_LEFT - 6, y + 11, stage.name[:12], end=True)
        times = [_since(trace, at) for at in (stage.opened_at, stage.soaking_since, stage.passed_at)]
        ends = [*times[1:], trace.end_s]
        for (kind, colour), start, end in zip(_STAGE.items(), times, ends, strict=True):
            stop = end if end is not None else trace.end_s
            if start is not None and stop >= start:
                width = max(1.0, _x(trace, stop) - _x(trace, start))
                yield (
                    f'<rect x="{_x(trace, start):g}" y="{y}" width="{width:.1f}" height="12" fill="{colour}">'
                    f"<title>{escape(stage.name)}: {kind} from {span(start)}</title></rect>"
                )


def _since(trace: Trace, at: datetime | None) -> float | None:
    return None if at is None else (at - trace.begin).total_seconds()


def _rule(trace: Trace, top: float, name: str, known: list[tuple[float, RuleFigure]]) -> Iterator[str]:
    """A rule's share over time, its limit, and a mark from where on the sample was large enough."""
    last, height = known[-1][1], 34
    is_count = last.rule.endswith("_count")
    scale = max(last.limit, *(_value(figure) for _, figure in known), 1e-9)
    yield _text(_LEFT, top - 4, f"{name}: {last.text}"[:140])
    y = top + height * (1 - last.limit / scale)
    yield f'<path class="limit" d="M{_LEFT},{y:.1f}H{_LEFT + _WIDTH}"/>'
    points = [(_x(trace, at_s), top + height * (1 - _value(figure) / scale)) for at_s, figure in known]
    points.append((_LEFT + _WIDTH, points[-1][1]))
    yield f'<path class="share" d="M{" L".join(f"{x:g},{y:.1f}" for x, y in points)}"/>'
    enough = next((at_s for at_s, figure in known if not is_count and figure.denominator >= figure.sample), None)
    if enough is not None:
        yield f'<path class="axis" d="M{_x(trace, enough):g},{top}v{height}"><title>sample reached</title></path>'


def _value(figure: RuleFigure) -> float:
    if figure.rule.endswith("_count"):
        return float(figure.numerator)
    return figure.numerator / figure.denominator if figure.denominator else 0.0
