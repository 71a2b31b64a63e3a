"""``flagship release export`` against a real serve: the whole tree, incremental; the errors that a person meets."""

import json
from pathlib import Path

import pytest

from orchestrator.config import Home
from tests.orchestrator.cli.conftest import RELEASE, Run, ask


def test_all_that_is_published_is_exported(run: Run, served: Home, tmp_path: Path) -> None:
    """Every chunk that serve lists is a file, the trust is there, and a second export writes nothing."""
    done = ask(run, "release", "export", tmp_path)
    assert done["releases"] == [RELEASE]
    stored = {path.name: path.read_bytes() for path in served.chunks.glob("*/*")}
    assert {path.name: path.read_bytes() for path in (tmp_path / "chunks").iterdir()} == stored
    assert (done["written"], done["kept"]) == (len(stored), 0)
    assert {"1.root.json", "timestamp.json"} <= set(done["trust"]) == {p.name for p in (tmp_path / "trust").iterdir()}
    code, out, err = run("release", "export", tmp_path, RELEASE, RELEASE)
    assert (code, err) == (0, "")
    assert f"0 chunks (0.0 MB) written, {len(stored)} were there" in out


@pytest.mark.parametrize(
    ("release", "code"),
    [("gateway/9.9.9", 3), ("gateway", 2)],
    ids=["unknown", "no name"],
)
def test_releases_that_cannot_be_exported(run: Run, tmp_path: Path, release: str, code: int) -> None:
    """They are named, and nothing is written."""
    found, _, err = run("release", "export", tmp_path / "tree", release)
    assert found == code, err
    assert not (tmp_path / "tree").exists()


def test_a_place_inside_the_home_is_refused(run: Run, served: Home) -> None:
    """The home is not for others to serve from."""
    code, _, err = run("release", "export", served.path / "tree")
    assert code == 4
    assert "inside the home" in err


def test_json_is_one_object(run: Run, tmp_path: Path) -> None:
    """Programs read it as a whole; no bar stands in between."""
    _, out, _ = run("release", "export", tmp_path, "-o", "json")
    assert json.loads(out)["chunks"] > 0
