"""``flagship trust``: a ceremony through files, offline; what is refused, and with which exit code."""

import json
import os
from pathlib import Path

import pytest

from orchestrator.cli.client import ApiClient
from orchestrator.cli.main import main
from tests.orchestrator.cli.conftest import Run
from tests.orchestrator.publisher.workshop import make_publisher

Said = pytest.CaptureFixture[str]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A publisher's folder; expiry is judged by the real clock."""
    from datetime import UTC, datetime

    return make_publisher(tmp_path / "home", start=datetime.now(UTC)).workspace.directory


def flagship(*words: object) -> int:
    """One command."""
    return main([str(word) for word in words])


def password(place: Path, text: str = "correct horse") -> Path:
    """A password's file."""
    file = place / "password"
    file.write_text(f"{text}\n")
    file.chmod(0o600)
    return file


def test_a_ceremony_through_files(keys: Path, tmp_path: Path, capsys: Said) -> None:
    """Key, propose, sign, publish, show: a holder with an encrypted key joins root."""
    secret, file = password(tmp_path), tmp_path / "p"
    assert flagship("trust", "key", tmp_path / "ada.key", "--holder", "Ada", "--password-file", secret) == 0
    words = ["trust", "propose", "-o", file, "--keys", keys, "--add", f"root={tmp_path / 'ada.pub'}", "--offline"]
    assert flagship(*words, "--threshold", "root=2") == 0
    assert flagship("trust", "publish", file, "--keys", keys, "--offline") == 7
    assert "root, old keys: 0 of 1 signatures, 1 more of root-1" in capsys.readouterr().err
    assert flagship("trust", "sign", file, "--key", tmp_path / "ada.key", "--password-file", secret, "--yes") == 0
    assert flagship("trust", "sign", file, "--key", keys / "keys" / "root-1.key", "--yes") == 0
    assert "complete; hand it to 'flagship trust publish'" in capsys.readouterr().out
    assert flagship("trust", "publish", file, "--keys", keys, "--offline") == 0
    capsys.readouterr()
    assert flagship("trust", "show", "--keys", keys, "-o", "json") == 0
    root = next(row for row in json.loads(capsys.readouterr().out) if row["role"] == "root")
    assert (root["version"], root["threshold"], [key["holder"] for key in root["keys"]]) == (2, 2, ["root-1", "Ada"])
    assert root["level"] == "fine"


def test_the_password_comes_by_file_or_descriptor_and_is_never_shown(keys: Path, tmp_path: Path, capsys: Said) -> None:
    """A wrong one is exit code 4; without a terminal and a source it is said what to name."""
    secret, key = password(tmp_path), tmp_path / "ada.key"
    assert flagship("trust", "key", key, "--password-file", secret) == 0
    file = tmp_path / "p"
    flagship("trust", "propose", "-o", file, "--keys", keys, "--add", f"targets={tmp_path / 'ada.pub'}",
             "--threshold", "targets=2", "--offline")  # fmt: skip
    capsys.readouterr()
    sign = ["trust", "sign", file, "--key", key, "--yes"]
    assert flagship(*sign, "--password-file", password(tmp_path, "wrong")) == 4
    assert "wrong password" in capsys.readouterr().err
    assert flagship(*sign) == 4
    assert "name --password-file or --password-fd" in capsys.readouterr().err
    reading, writing = os.pipe()
    os.write(writing, b"correct horse\n")
    os.close(writing)
    assert flagship(*sign, "--password-fd", reading) == 0
    os.close(reading)
    said = capsys.readouterr()
    assert "correct horse" not in said.out + said.err
    assert b"correct horse" not in file.read_bytes()


def test_nobody_signs_without_being_asked(keys: Path, tmp_path: Path, capsys: Said) -> None:
    """Without a terminal only ``--yes`` answers; the changes were shown before."""
    file = tmp_path / "p"
    flagship("trust", "propose", "-o", file, "--keys", keys, "--renew", "targets", "--offline")
    capsys.readouterr()
    assert flagship("trust", "sign", file, "--key", keys / "keys" / "targets-1.key") == 4
    said = capsys.readouterr()
    assert "targets: version 1 -> 2" in said.out
    assert "there is no terminal to ask at" in said.err
    assert flagship("trust", "sign", file) == 2


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--add", "root"], 2, "expected ROLE=PUBLIC_KEY_FILE"),
        (["--add", "root=absent.pub"], 3, "absent.pub: no such public key"),
        (["--threshold", "root=many"], 2, "expected a number"),
        (["--threshold", "root=2"], 2, "threshold 2 with 1 keys can never be met"),
        (["--remove", "root=root-1"], 2, "nobody could sign it"),
        (["--remove", "root=nobody"], 3, "no key nobody; it has root-1"),
        (["--unlist", "gateway"], 2, "gateway"),
        ([], 2, "found nothing"),
    ],
)
def test_words_that_make_no_sense(
    keys: Path, tmp_path: Path, capsys: Said, words: list[str], code: int, says: str
) -> None:
    """One sentence, and no file."""
    assert flagship("trust", "propose", "-o", tmp_path / "p", "--keys", keys, "--offline", *words) == code
    assert says in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_renewal(keys: Path, tmp_path: Path, capsys: Said) -> None:
    """Nothing is due; then all is; a key that is elsewhere makes it a proposal and exit code 7."""
    renew = ["trust", "renew", "--keys", keys, "--offline", "-o", tmp_path / "renewal"]
    assert flagship(*renew) == 0
    assert "nothing runs out within 30 days" in capsys.readouterr().out
    assert flagship(*renew, "--within", "91") == 0
    assert (keys / "metadata" / "2.snapshot.json").exists()
    (keys / "keys" / "targets-1.key").rename(tmp_path / "elsewhere.key")
    assert flagship(*renew, "--within", "200") == 7
    assert flagship("trust", "sign", tmp_path / "renewal", "--key", tmp_path / "elsewhere.key", "--yes") == 0
    assert flagship("trust", "publish", tmp_path / "renewal", "--keys", keys, "--offline") == 0


def test_serve_takes_it_and_says_what_devices_get(run: Run, tmp_path: Path) -> None:
    """Through the API of a real serve: check, working copy, publication; again without a proposal."""
    file = tmp_path / "p"
    assert run("trust", "propose", "-o", file, "--renew", "targets")[0] == 0
    home = Path(os.environ["FLAGSHIP_HOME"])
    for name in ("targets-1", "snapshot-1"):
        assert run("trust", "sign", file, "--key", home / "publisher" / "keys" / f"{name}.key", "--yes")[0] == 0
    code, out, _ = run("trust", "publish", file)
    assert (code, "serve has root 1" in out) == (0, True)
    assert (home / "trust" / "2.targets.json").exists()
    assert run("trust", "publish")[0] == 0
    assert run("trust", "publish", file)[0] == 5
    last = ApiClient(home).get("/events", limit=500)["items"][-1]
    assert (last["kind"], last["actor"]) == ("trust_updated", "admin")
