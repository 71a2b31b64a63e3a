"""``flagship rollout plan`` and plans from files, against a real serve."""

from pathlib import Path

import pytest

from orchestrator.cli.rollout_plan import byte_words, time_words
from tests.orchestrator.cli.conftest import RELEASE, Run, ask
from tests.orchestrator.cli.test_main import assert_sentence

PLAN = f"""\
release: {RELEASE}
members: {{selector: site=lab}}
stages:
- {{name: canary, group: canary}}
- {{name: all, percent: 100}}
pace_per_minute: 0.5
soak_s: 15m
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A plan of two stages."""
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


def test_a_plan_is_tried_out(run: Run, file: Path) -> None:
    """By words or from a file: the same plan, the same answer, and no rollout."""
    before = ask(run, "rollout", "list")
    words = ["--release", RELEASE, "--selector", "site=lab", "--stage", "canary=group:canary", "--stage", "all=100%"]
    said = ask(run, "rollout", "plan", *words, "--pace", "0.5", "--soak", "15m")
    found = ask(run, "rollout", "plan", "-f", file)
    assert said == found
    assert (found["members"], found["examined"]) == (3, 3)
    assert [(stage["name"], stage["members"]) for stage in found["stages"]] == [("canary", 1), ("all", 2)]
    assert found["duration"]["stages"][1] == {"name": "all", "members": 2, "offering_s": 240, "soak_s": 900}
    assert found["bytes_by_site"]["sites"] == [{"site": "lab", "members": 3, "size_bytes": 150_000}]
    assert ask(run, "rollout", "list") == before


def test_people_read_it_as_tables(run: Run) -> None:
    """Stages, exclusions with examples, bytes, time and warnings."""
    code, out, _ = run("rollout", "plan", "--release", RELEASE, "--selector", "id=gw-2")
    assert code == 0
    for part in (
        f"{RELEASE}: 1 members of 3 devices",
        "the plan's selector does not match",
        "gw-1 is not matched by the plan's selector",
        "connected: 0 of 1; silent: 0",
        "50 kB each",
        "takes: unknown (no earlier rollout to go by, no pace)",
        "warning: a stage with more than 5.00% and less than 10.00% failures neither passes nor halts",
    ):
        assert part in out


def test_a_rollout_is_made_from_a_file(run: Run, file: Path) -> None:
    """The file's plan, to the last key; another release may be named beside it."""
    made = ask(run, "rollout", "create", "-f", file, "from-file")
    assert (made["id"], made["state"], made["spec"]["soak_s"]) == ("from-file", "draft", 900)
    assert run("rollout", "abort", "from-file")[0] == 0
    code, _, err = run("rollout", "create", "-f", file, "--release", "gateway/9.9")
    assert (code, "release gateway/9.9" in err) == (3, True)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        pytest.param(["-f", "FILE", "--soak", "1h", "--pace", "3"], 2, "leave out --soak, --pace", id="said twice"),
        pytest.param([], 2, "--release: missing", id="nothing"),
        pytest.param(["-f", "none.yaml"], 3, "none.yaml: there is no such file", id="no file"),
        pytest.param(["--release", RELEASE, "--selector", "site=mars"], 5, "plan: no member", id="nobody"),
        pytest.param(["--release", RELEASE, "--group", ""], 2, "--group '': expected devices", id="empty word"),
    ],
)
def test_what_is_no_plan_is_refused(run: Run, file: Path, words: list[str], code: int, says: str) -> None:
    """In one sentence, with the code of its kind."""
    found, out, err = run("rollout", "plan", *[str(file) if word == "FILE" else word for word in words])
    assert_sentence(err)
    assert (found, out) == (code, "")
    assert says in err


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e15, "2 PB"), (3e18, "3e+03 PB")]
)
def test_sizes_as_people_say_them(size: float, words: str) -> None:
    """Three figures."""
    assert byte_words(size) == words


def test_times_as_people_say_them() -> None:
    """Hours, minutes, seconds; a dash for none."""
    assert [time_words(seconds) for seconds in (0, 61, 90_000)] == ["-", "0:01:01", "1 day, 1:00:00"]
