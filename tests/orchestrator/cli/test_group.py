"""Groups on the command line."""

from tests.orchestrator.cli.conftest import DEVICES, Run, ask
from tests.orchestrator.cli.test_main import assert_sentence


def test_a_group_is_made_changed_and_shown(run: Run) -> None:
    """Create, add, remove, show and list agree; a name twice counts once."""
    assert ask(run, "group", "create", "lab", DEVICES[0])["devices"] == [DEVICES[0]]
    assert ask(run, "group", "add", "lab", DEVICES[1], DEVICES[1], DEVICES[2])["devices"] == list(DEVICES)
    assert ask(run, "group", "remove", "lab", DEVICES[0])["devices"] == list(DEVICES[1:])
    assert ask(run, "group", "show", "lab") == {"name": "lab", "devices": list(DEVICES[1:])}
    assert {"name": "lab", "devices": 2} in ask(run, "group", "list")
    assert "lab" in run("group", "list")[1]


def test_a_refused_change_changes_nothing(run: Run) -> None:
    """An unknown device, a name that is taken, a group that is not there: one sentence and the code of its kind."""
    before = ask(run, "group", "show", "canary")
    for code, words in (
        (3, ["add", "canary", DEVICES[1], "zz"]),
        (3, ["remove", "canary", DEVICES[0], DEVICES[1]]),
        (3, ["show", "zz"]),
        (3, ["create", "new", "zz"]),
        (5, ["create", "canary"]),
    ):
        found, out, err = run("group", *words)
        assert_sentence(err)
        assert (found, out) == (code, "")
    assert ask(run, "group", "show", "canary") == before
    assert run("group", "show", "new")[0] == 3
