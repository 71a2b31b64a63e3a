"""From figures to verdicts."""

from dataclasses import replace

import pytest

from orchestrator.broker_check.figures import Figures, Verdict
from orchestrator.broker_check.judging import best_qos, best_window, judge, overall

GOOD = Figures(
    tls=("TLSv1.3", "AES"),
    mqtt5=True,
    lookup_few_s=0.002,
    lookup_many_s=0.003,
    lookup_others=1000,
    windows={(qos, window): window for qos in (0, 1) for window in (16, 32, 64, 128)},
    wildcard_found=1000,
    wildcard_of=1000,
    chunk_ok=True,
    acknowledged=10,
    read_back=10,
    forged={"chunk": False},
    spied=False,
    qos_rate={0: 2e8, 1: 1.9e8},
    cleared=True,
)


def _windows(qos1: int, qos0: int = 128) -> dict[tuple[int, int], int]:
    return {(qos, size): min(size, most) for qos, most in ((1, qos1), (0, qos0)) for size in (16, 32, 64, 128)}


def test_good_figures_are_fit() -> None:
    """All of them."""
    assert overall(judge(GOOD)) is Verdict.FIT
    assert best_window(GOOD) == 64


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"tls": ("none", "none")}, Verdict.UNFIT),
        ({"mqtt5": False}, Verdict.LIMITED),
        ({"acknowledged": 0, "read_back": 0}, Verdict.UNFIT),
        ({"read_back": 9}, Verdict.UNFIT),
        ({"lookup_many_s": 1.5}, Verdict.UNFIT),
        ({"lookup_many_s": 0.1}, Verdict.FIT),
        ({"lookup_few_s": None}, Verdict.LIMITED),
        ({"windows": _windows(15)}, Verdict.UNFIT),
        ({"windows": _windows(40)}, Verdict.LIMITED),
        ({"windows": _windows(128, 10)}, Verdict.LIMITED),
        ({"windows": {}}, Verdict.LIMITED),
        ({"wildcard_found": 100}, Verdict.UNFIT),
        ({"wildcard_found": None}, Verdict.LIMITED),
        ({"chunk_ok": False}, Verdict.UNFIT),
        ({"chunk_ok": None}, Verdict.LIMITED),
        ({"forged": {"chunk": True}}, Verdict.UNFIT),
        ({"spied": True}, Verdict.UNFIT),
        ({"forged": {}}, Verdict.LIMITED),
        ({"qos_rate": {0: 2e8, 1: 1e7}}, Verdict.LIMITED),
        ({"qos_rate": {}}, Verdict.LIMITED),
        ({"cleared": False}, Verdict.UNFIT),
    ],
)
def test_each_figure_counts(changes: dict[str, object], verdict: Verdict) -> None:
    """One bad figure decides; what is not fit says what to do, unless it was not probed."""
    findings = judge(replace(GOOD, **changes))  # type: ignore[arg-type]
    assert overall(findings) is verdict
    for one in findings:
        assert one.advice or one.verdict in (Verdict.FIT, Verdict.UNKNOWN) or one.probe == "TLS"


@pytest.mark.parametrize(("whole", "window"), [(8, 0), (16, 16), (40, 16), (64, 32), (128, 64)])
def test_the_window_stays_away_from_the_edge(whole: int, window: int) -> None:
    """Half of what came whole, once that is enough."""
    assert best_window(replace(GOOD, windows=_windows(whole))) == window


def test_qos_0_where_qos_1_is_many_times_slower() -> None:
    """As on NATS; then the losses of QoS 0 decide the window."""
    slow = replace(GOOD, qos_rate={0: 2e8, 1: 4e6}, windows=_windows(8, 128))
    assert best_qos(slow) == 0
    assert best_window(slow) == 64
    assert overall(judge(slow)) is Verdict.LIMITED
