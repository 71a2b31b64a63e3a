"""Devices on the command line: admitted together or not at all."""

import json
from pathlib import Path

import pytest

from protocol.enrolment import MAX_REQUEST_BYTES, EnrolmentAnswers
from tests.orchestrator.cli.conftest import DEVICES, Run, ask, write_request
from tests.orchestrator.cli.test_main import assert_sentence


def known(run: Run) -> list[str]:
    """Ids of all devices."""
    return [device["id"] for device in ask(run, "device", "list")]


def test_enrol_writes_the_answers(run: Run, tmp_path: Path) -> None:
    """One file with an answer per request, readable by the device's owner, and no draft beside it."""
    requests = [write_request(tmp_path, name) for name in ("en-1", "en-2")]
    place = tmp_path / "out"
    place.mkdir()
    code, out, err = run("device", "enrol", *requests, "-o", place / "answers.json")
    assert (code, err) == (0, "")
    assert "2 devices enrolled" in out
    answers = EnrolmentAnswers.model_validate_json((place / "answers.json").read_text())
    assert [answer.device for answer in answers.answers] == ["en-1", "en-2"]
    assert [file.name for file in place.iterdir()] == ["answers.json"]
    assert (place / "answers.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("raw", "code", "says"),
    [
        pytest.param(b"", 2, "not a request", id="empty"),
        pytest.param(b"{", 2, "not a request", id="half"),
        pytest.param(b"\xff" * 100, 2, "not a request", id="not text"),
        pytest.param(b"[]", 2, "not a request", id="another document"),
        pytest.param(b" " * (MAX_REQUEST_BYTES + 1), 2, "larger file", id="too large"),
        pytest.param(None, 3, "no such request", id="not there"),
    ],
)
def test_a_file_that_is_no_request_admits_nobody(
    run: Run, tmp_path: Path, raw: bytes | None, code: int, says: str
) -> None:
    """The file is named, the good request beside it is not sent, nothing is written."""
    good, bad, output = write_request(tmp_path, "nobody"), tmp_path / "bad.json", tmp_path / "answers.json"
    if raw is not None:
        bad.write_bytes(raw)
    found, out, err = run("device", "enrol", good, bad, "-o", output)
    assert_sentence(err)
    assert (found, out) == (code, "")
    assert "bad.json" in err
    assert says in err
    assert not output.exists()
    assert "nobody" not in known(run)


def test_an_id_with_a_slash_is_refused_before_it_is_sent(run: Run, tmp_path: Path) -> None:
    """The id is named."""
    file = write_request(tmp_path, "ok")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"device": "a/b"}))
    code, _, err = run("device", "enrol", file, "-o", tmp_path / "answers.json")
    assert_sentence(err)
    assert code == 2
    assert "a/b" in err


def test_answers_that_cannot_be_written_admit_nobody(run: Run, tmp_path: Path) -> None:
    """A device must not be enrolled and left without its answer."""
    request = write_request(tmp_path, "nobody")
    code, _, err = run("device", "enrol", request, "-o", tmp_path / "nowhere" / "answers.json")
    assert_sentence(err)
    assert code == 1
    assert "nothing was enrolled" in err
    assert run("device", "enrol", request, "-o", tmp_path)[0] == 2
    assert "nobody" not in known(run)


def test_the_server_names_what_it_refuses(run: Run, tmp_path: Path) -> None:
    """An id that is taken by other keys is a conflict; the draft of the answers is gone."""
    code, _, err = run("device", "enrol", write_request(tmp_path, DEVICES[0]), "-o", tmp_path / "answers.json")
    assert_sentence(err)
    assert code == 5
    assert "enrolled with other keys" in err
    assert [file.name for file in tmp_path.iterdir()] == [f"{DEVICES[0]}.json"]


def test_list_and_show(run: Run) -> None:
    """All devices, those of a group, and one."""
    assert set(DEVICES) <= set(known(run))
    assert [device["id"] for device in ask(run, "device", "list", "--group", "canary")] == [DEVICES[0]]
    shown = ask(run, "device", "show", DEVICES[0])
    assert (shown["labels"], shown["groups"]) == ({"site": "lab"}, ["canary"])
    _, out, _ = run("device", "list")
    assert all(device in out for device in DEVICES)
    assert run("device", "show", "zz")[0] == 3
    assert run("device", "list", "--group", "zz")[0] == 3


def test_explain_says_why(run: Run) -> None:
    """Sentences for people, the same as JSON, and a rollout that the device takes no part in."""
    code, out, err = run("device", "explain", DEVICES[0])
    assert (code, err) == (0, "")
    assert out.startswith(f"{DEVICES[0]} is ")
    assert "never heard of" in out
    assert ask(run, "device", "explain", DEVICES[0])["sentences"] == out.splitlines()
    assert run("device", "explain", "zz")[0] == 3
    assert run("device", "explain", DEVICES[0], "--rollout", "zz")[0] == 3
    code, _, err = run("device", "explain", "a/b")
    assert_sentence(err)
    assert code == 2


def test_a_device_is_revoked_for_good(run: Run, tmp_path: Path) -> None:
    """One command, done when it returns; again is no harm; its id is not given again."""
    request = write_request(tmp_path, "rv-1")
    assert run("device", "enrol", request, "-o", tmp_path / "answers.json")[0] == 0
    assert run("device", "revoke", "rv-1")[0] == 2  # why?
    for _ in range(2):
        shown = ask(run, "device", "revoke", "rv-1", "--reason", "stolen")
        assert (shown["state"], shown["closed_reason"], shown["pending"]) == ("revoked", "stolen", "")
        assert shown["session_ended_at"]
    assert ask(run, "device", "show", "rv-1")["state"] == "revoked"
    code, _, err = run("device", "enrol", request, "-o", tmp_path / "answers.json")
    assert_sentence(err)
    assert (code, "was revoked" in err) == (5, True)
    code, _, err = run("device", "clear-duplicate", "rv-1", "--reason", "x")
    assert_sentence(err)
    assert code == 5
    assert run("device", "revoke", "zz", "--reason", "x")[0] == 3


def test_a_retired_id_is_enrolled_again(run: Run, tmp_path: Path) -> None:
    """With the same request, under a new certificate."""
    request = write_request(tmp_path, "rt-1")
    for _ in range(2):
        assert run("device", "enrol", request, "-o", tmp_path / "answers.json")[0] == 0
        assert ask(run, "device", "retire", "rt-1", "--reason", "sold")["state"] == "retired"


def test_lists_by_what_is_the_matter(run: Run) -> None:
    """Each has its own option; two at once make no sense."""
    for option in ("--silent", "--stale", "--duplicate"):
        assert ask(run, "device", "list", option) == []
    code, _, err = run("device", "list", "--silent", "--stale")
    assert_sentence(err)
    assert code == 2
