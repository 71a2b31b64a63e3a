"""Which token is sent: environment, then a named file, then the home's; what was chosen is never quietly replaced."""

import os
from pathlib import Path

import pytest

from orchestrator.cli.client import ApiClient
from orchestrator.cli.main import main
from orchestrator.cli.token_choice import choose_token
from orchestrator.errors import NotAllowedError, NotFoundError, UsageError
from tests.orchestrator.cli.test_client import TOKEN, Served, make_home, serving
from tests.orchestrator.cli.test_main import assert_sentence

SECRET = "flt_a-secret-that-nobody-may-read"


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLAGSHIP_TOKEN", raising=False)
    monkeypatch.delenv("FLAGSHIP_TOKEN_FILE", raising=False)


def write(file: Path, text: str, mode: int = 0o600) -> Path:
    """A token file."""
    file.write_text(text)
    file.chmod(mode)
    return file


def test_the_order_of_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each source hides those behind it; the option before the noun hides the file of the environment."""
    served, files = Served(answers=[b'{"items": []}']), [write(tmp_path / f"{n}.token", f"of-{n}\n") for n in (1, 2)]
    with serving(served) as port:
        home = make_home(tmp_path, port)
        words = ["group", "list", "--home", str(home.path)]
        assert main(words) == 0
        monkeypatch.setenv("FLAGSHIP_TOKEN_FILE", str(files[0]))
        assert main(words) == 0
        assert main(["--token-file", str(files[1]), *words]) == 0
        assert main(words) == 0  # an option holds for its own command
        monkeypatch.setenv("FLAGSHIP_TOKEN", " of-environment\n")
        assert main(["--token-file", str(files[1]), *words]) == 0
        ApiClient(home).get("/status")
    sent = [authorization.removeprefix("Bearer ") for _, _, authorization, _ in served.asked]
    assert sent == [TOKEN, "of-1", "of-2", "of-1", "of-environment", "of-environment"]


@pytest.mark.parametrize("source", ["FLAGSHIP_TOKEN", "FLAGSHIP_TOKEN_FILE"])
def test_a_home_needs_no_token_where_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """An operator's folder holds an address and no more."""
    home = make_home(tmp_path, 1)
    home.admin_token.unlink()
    file = write(tmp_path / "my.token", SECRET)
    monkeypatch.setenv(source, SECRET if source == "FLAGSHIP_TOKEN" else str(file))
    ApiClient(home)


@pytest.mark.parametrize("text", ["", " \n", "t\u00f6ken", "a\nb", "x" * 257])
def test_a_chosen_token_that_is_none_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """It is not replaced by the admin's, who would then be said to have done it; the sentence does not repeat it."""
    admin = write(tmp_path / "admin.token", TOKEN)
    monkeypatch.setenv("FLAGSHIP_TOKEN", text)
    with pytest.raises(NotAllowedError, match="FLAGSHIP_TOKEN in the environment: expected a token") as caught:
        choose_token(admin)
    assert not text.strip() or text not in str(caught.value)
    monkeypatch.delenv("FLAGSHIP_TOKEN")
    monkeypatch.setenv("FLAGSHIP_TOKEN_FILE", str(write(tmp_path / "my.token", text)))
    with pytest.raises(NotAllowedError, match=r"my\.token: expected a token in one line"):
        choose_token(admin)


def test_a_chosen_file_that_cannot_be_used_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, unnamed, a folder, or open to others: said by name, and nothing else is sent."""
    admin = write(tmp_path / "admin.token", TOKEN)
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    for place, kind, says in (
        (tmp_path / "none", NotFoundError, "the token is missing; name another with --token-file"),
        ("", NotAllowedError, "is empty; name a file, or unset it"),
        (folder, NotAllowedError, "cannot be read"),
        (write(tmp_path / "open.token", SECRET, 0o640), NotAllowedError, "others may read the token; run 'chmod 600"),
    ):
        monkeypatch.setenv("FLAGSHIP_TOKEN_FILE", str(place))
        with pytest.raises(kind, match=says) as caught:
            choose_token(admin)
        assert SECRET not in str(caught.value)


def test_a_token_in_place_of_a_file_is_not_said_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would come into logs by our sentence."""
    home = make_home(tmp_path, 1)
    for words in (
        ["--token-file", SECRET, "group", "list", "--home", str(home.path)],
        ["token", "create", SECRET, "--home", str(home.path)],
        ["token", "revoke", SECRET, "--home", str(home.path)],
    ):
        assert main(words) == UsageError.exit_code
        err = capsys.readouterr().err
        assert_sentence(err)
        assert "found a token" in err and SECRET not in err
    monkeypatch.setenv("FLAGSHIP_TOKEN_FILE", SECRET)
    with pytest.raises(UsageError, match="found a token"):
        choose_token(home.admin_token)


def test_no_failure_tells_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody serves, a stranger serves, the server refuses, even a mistake of ours."""
    monkeypatch.setenv("FLAGSHIP_TOKEN", SECRET)
    said = []
    for served in (
        Served(answers=[b"<html>"]),
        Served(status=401, answers=[b'{"detail": "no", "exit_code": 4}']),
        Served(answers=[b"[]"]),
    ):
        with serving(served) as port:
            home = make_home(tmp_path, port)
            assert main(["group", "list", "--home", str(home.path)]) != 0
        assert served.asked[0][2] == f"Bearer {SECRET}"
        said.append(capsys.readouterr())
    assert main(["group", "list", "--home", str(home.path)]) == 9
    said.append(capsys.readouterr())
    assert all(one.err for one in said)
    assert SECRET not in f"{said}"
    assert SECRET not in repr(ApiClient(home))


def test_the_demo_does_not_speak_with_another_fleets_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own fleet would refuse it."""
    from orchestrator.demo.processes import _environment

    monkeypatch.setenv("FLAGSHIP_TOKEN", SECRET)
    monkeypatch.setenv("FLAGSHIP_TOKEN_FILE", "x")
    made = _environment({"FLAGSHIP_LOG": "debug"})
    assert SECRET not in made.values()
    assert "FLAGSHIP_TOKEN_FILE" not in made
    assert (made["FLAGSHIP_LOG"], made["PATH"]) == ("debug", os.environ["PATH"])
