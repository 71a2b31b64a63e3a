"""Named tokens on the command line, against a real serve: made, used, revoked; who did what stands in the events."""

import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.client import ApiClient
from orchestrator.config import Home
from tests.orchestrator.cli.conftest import Run, ask
from tests.orchestrator.cli.test_main import assert_sentence


def events(home: Home) -> list[dict[str, Any]]:
    """All of them, as the admin sees them."""
    return list(ApiClient(home).pages("/events"))


def test_a_token_is_made_used_and_revoked(run: Run, served: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Printed once and alone on stdout; its holder acts under its name, until the next command after the revocation."""
    code, out, err = run("token", "create", "anna")
    assert code == 0
    assert re.fullmatch(r"flt_[A-Za-z0-9_-]{43}\n", out)
    assert "shown only now" in err and out.strip() not in err
    with monkeypatch.context() as as_anna:
        as_anna.setenv("FLAGSHIP_TOKEN", out.strip())
        ask(run, "group", "create", "of-anna")
        assert "anna" in run("token", "list")[1]
        for words in (["create", "annas-second"], ["revoke", "anna"]):
            refused, nothing, sentence = run("token", *words)
            assert_sentence(sentence)
            assert (refused, nothing) == (4, "")
            assert "only the home's admin token" in sentence
    assert ask(run, "token", "revoke", "anna")["revoked_at"]
    with monkeypatch.context() as as_anna:
        as_anna.setenv("FLAGSHIP_TOKEN", out.strip())
        code, _, err = run("group", "list")
        assert_sentence(err)
        assert code == 4 and "was revoked" in err and out.strip() not in err
    found = [
        (event["kind"], event["actor"]) for event in events(served) if event["text"].startswith(("anna", "group of"))
    ]
    assert found == [("token_created", "admin"), ("group_created", "anna"), ("token_revoked", "admin")]
    (row,) = [row for row in ask(run, "token", "list") if row["name"] == "anna"]
    assert row["created_by"] == "admin" and row["last_used_at"] and row["revoked_at"]
    assert out.strip() not in f"{row}"


def test_json_holds_the_token_too(run: Run) -> None:
    """For programs; nothing on stderr."""
    made = ask(run, "token", "create", "pipeline")
    assert made["name"] == "pipeline"
    assert made["token"].startswith("flt_")
    code, out, err = run("token", "revoke", "pipeline")
    assert (code, out, err) == (0, "pipeline: token revoked\n", "")


def test_refusals_have_the_code_of_their_kind(run: Run) -> None:
    """Reserved, taken, unknown, not an id."""
    ask(run, "token", "create", "ben")
    for code, words in (
        (2, ["create", "engine"]),
        (5, ["create", "ben"]),
        (3, ["revoke", "zz"]),
        (2, ["create", "a/b"]),
    ):
        found, out, err = run("token", *words)
        assert_sentence(err)
        assert (found, out) == (code, "")


def test_serve_keeps_no_token(run: Run, served: Home) -> None:
    """Not in its log, nor in any file of the home; and its import of a release has an actor."""
    secret = ask(run, "token", "create", "carl")["token"]
    ApiClient(served).get("/status")
    files = [file for file in (*served.path.rglob("*"), served.path.parent / "serve.log") if file.is_file()]
    assert len(files) > 20
    assert [file for file in files if secret.encode() in file.read_bytes()] == []
    admin = served.admin_token.read_text().strip().encode()
    assert [file for file in files if admin in file.read_bytes()] == [served.admin_token]
    assert [event["actor"] for event in events(served) if event["kind"] == "release_imported"][:1] == ["admin"]


def test_a_token_file_names_who_acts(run: Run, served: Home, tmp_path: Path) -> None:
    """As ``--token-file`` before the noun."""
    file = tmp_path / "dora.token"
    file.touch(0o600)
    file.write_text(run("token", "create", "dora")[1])
    assert run("--token-file", file, "group", "create", "of-dora")[0] == 0
    assert [event["actor"] for event in events(served) if event["text"].startswith("group of-dora")] == ["dora"]
