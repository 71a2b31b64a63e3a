"""``flagship simulate``: offline, from a plan file to a picture; bad words are one sentence."""

import json
from pathlib import Path

import pytest

from orchestrator.cli import simulate
from orchestrator.cli.main import main

PLAN = """\
release: cam/2.0.0
stages:
- {name: canary, percent: 10}
- {name: all, percent: 100}
"""


@pytest.fixture
def plan(tmp_path: Path) -> str:
    """A plan file."""
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN)
    return str(file)


def test_a_good_plan_completes(plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As text, as JSON with the same trace, and as a picture."""
    svg = tmp_path / "out.svg"
    assert main(["simulate", plan, "--devices", "50", "--svg", str(svg)]) == 0
    text = capsys.readouterr().out
    assert "cam/2.0.0  completed after" in text
    assert main(["simulate", plan, "--devices", "50", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["members"], found["states"]) == ("completed", 50, {"succeeded": 50})
    assert f"trace {found['trace']}\n" in text
    assert svg.read_text().startswith("<svg ")


def test_a_bad_release_ends_with_six(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The picture is drawn all the same."""
    assert main(["simulate", plan, "--failure-rate", "health=90%"]) == 6
    said = capsys.readouterr()
    assert "halted by rule" in said.out
    assert "flagship: the simulated rollout was halted: stage canary" in said.err


def test_a_long_one_says_how_far_it_is(
    plan: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On standard error, so that what is asked for stays alone on the other."""
    monkeypatch.setattr(simulate, "FIRST_S", 0.0)
    assert main(["simulate", plan, "--devices", "50", "-o", "json"]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("simulated ")
    assert json.loads(said.out)["state"] == "completed"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--failure-rate", "smoke=1%"], 2, "expected CLASS=SHARE such as health=2%, with a class of download"),
        (["--failure-rate", "health"], 2, "expected CLASS=SHARE"),
        (["--failure-rate", "health=70%,install=70%"], 2, "add up to 140%"),
        (["--offline", "99%"], 2, "from 0 to 0.95"),
        (["--devices", "0"], 2, "--devices"),
        (["--until", "soon"], 2, "--until 'soon': expected a duration"),
        (["--image", "big"], 2, "--image 'big': expected a size"),
        (["--zone", "20"], 2, "from -12 to 14"),
        (["--svg", "/nowhere/out.svg"], 1, "cannot be written"),
    ],
)
def test_bad_words(plan: str, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str) -> None:
    """One sentence and the right exit code."""
    assert main(["simulate", plan, "--devices", "20", *words]) == code
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
