"""The verbs of ``flagship rollout`` and ``flagship halt-all``, against a real serve and broker."""

from pathlib import Path
from textwrap import dedent

import pytest

from orchestrator.cli.plan_file import read_plan_file
from tests.orchestrator.cli.conftest import DEVICES, RELEASE, Run, ask

PLAN = f"""\
release: {RELEASE}
members: {{selector: site=lab}}
stages:
- {{name: canary, group: canary, approval: true}}
- {{name: all, percent: 100}}
needs_approval: true
halt_rules:
- {{classes: [rolled_back, silent_after_activation], count: 1}}
"""


def assert_sentence(said: tuple[int, str, str], code: int, words: str) -> None:
    """A command ended with this code, and said this in one line."""
    assert said[0] == code, said
    assert words in said[2] and said[2].count("\n") == 1
    assert said[1] == ""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A plan that another person approves."""
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


def test_from_a_plan_file_to_a_halted_fleet(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submitted by one, approved by another, started, promoted, halted with everything else, and gone on."""
    made = ask(run, "rollout", "create", "-f", file, "eyes")
    assert made["state"] == "draft"
    assert_sentence(run("rollout", "start", "eyes"), 5, "its plan needs approval; 'flagship rollout submit eyes'")
    assert run("rollout", "submit", "eyes")[1] == "rollout eyes: awaiting_approval\n"
    assert_sentence(run("rollout", "approve", "eyes"), 4, "was submitted by admin; another person approves it")
    token = ask(run, "token", "create", "bob")["token"]
    with monkeypatch.context() as bobs:
        bobs.setenv("FLAGSHIP_TOKEN", token)
        assert ask(run, "rollout", "approve", "eyes")["approved_by"] == "bob"
    ask(run, "rollout", "start", "eyes")
    seen = ask(run, "rollout", "show", "eyes")["version"]
    ask(run, "rollout", "pause", "eyes", "--reason", "lunch")
    assert_sentence(run("rollout", "resume", "eyes", "--if-version", seen), 5, "somebody changed it since")
    ask(run, "rollout", "resume", "eyes")
    assert_sentence(run("rollout", "retry", "eyes"), 5, "no device failed that way")
    assert_sentence(run("rollout", "revert", "eyes"), 5, "no device can go back: none was updated by it")

    assert run("halt-all", "--check")[0] == 0
    code, out, _ = run("halt-all", "--reason", "smoke")
    assert code == 0 and out.startswith("the fleet is halted: ") and "eyes" in out
    assert_sentence(run("halt-all", "--check"), 6, "by admin: smoke")
    said = " ".join(ask(run, "device", "explain", DEVICES[0], "--rollout", "eyes")["sentences"])
    assert "The whole fleet is halted since" in said
    assert_sentence(run("halt-all", "--lift"), 2, "say why it may go on with --reason")
    assert "eyes" in run("halt-all", "--lift", "--reason", "a kettle")[1]
    assert_sentence(run("halt-all", "--lift", "--check"), 2, "one of the two")

    refused = run("rollout", "clone", "eyes", "again")
    assert_sentence(refused, 5, "3: has an open part in another rollout of the same release")
    ask(run, "rollout", "abort", "eyes", "--reason", "test is over")
    cloned = ask(run, "rollout", "clone", "eyes", "again")
    assert (cloned["id"], cloned["state"], cloned["spec"]["needs_approval"]) == ("again", "draft", True)
    ask(run, "rollout", "abort", "again", "--reason", "test is over")
    ask(run, "token", "revoke", "bob")


def test_show_explains_each_rule(run: Run, file: Path) -> None:
    """With the figures, the share that they allow, the limit, and in words."""
    ask(run, "rollout", "create", "--release", RELEASE, "--selector", "site=lab", "ruled", "--halt-count", "2")
    ask(run, "rollout", "start", "ruled")
    try:
        for _ in range(50):
            rules = ask(run, "rollout", "show", "ruled")["rules"]
            if rules:
                break
        assert [rule["rule"] for rule in rules] == ["failures", "failure_count", "success"]
        assert rules[0] == {
            "stage": "all", "rule": "failures", "numerator": 0, "denominator": 0, "sample": 3, "limit": 0.1,
            "met": False, "text": "stage all: 0 of 0 finished failed, halts at 10% of at least 3",
        }  # fmt: skip
        table = run("rollout", "show", "ruled")[1]
        assert "halts at 10% of at least 3" in table and "rollout: 0 failed, halts at 2" in table
    finally:
        ask(run, "rollout", "abort", "ruled")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        pytest.param(["promote", "r-999"], 3, "rollout r-999: there is none", id="unknown"),
        pytest.param(["approve", "a/b"], 2, "expected 1 to 64 letters", id="bad id"),
        pytest.param(["retry", "r-1", "--class", "bad"], 2, "bad", id="no such class"),
        pytest.param(["retry", "r-1", "--device", "a+b"], 2, "device id", id="bad device"),
        pytest.param(["halt", "r-1", "--if-version", "0"], 2, "if-version", id="bad version"),
        pytest.param(["clone", "r-999"], 3, "there is none", id="clone of nothing"),
        pytest.param(["clone", "r-1", "--release", "gateway"], 2, "gateway", id="bad release"),
    ],
)
def test_bad_words(run: Run, words: list[str], code: int, says: str) -> None:
    """One sentence, and the exit code of what is wrong."""
    assert_sentence(run("rollout", *words), code, says)


def test_the_plan_that_is_shown_is_a_plan_file(run: Run, file: Path, tmp_path: Path) -> None:
    """What people read under "plan:" may be saved and used again."""
    ask(run, "rollout", "create", "-f", file, "shown")
    try:
        shown = run("rollout", "show", "shown")[1]
        again = tmp_path / "again.yaml"
        again.write_text(dedent(shown.partition("plan:\n")[2]))
        assert read_plan_file(again) == read_plan_file(file)
    finally:
        ask(run, "rollout", "abort", "shown")
