"""``flagship rollout offline`` against a real serve: the whole medium, and the errors that a person meets."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.config import Home
from tests.orchestrator.cli.conftest import DEVICES, RELEASE, Run, ask


@pytest.fixture
def rollout(run: Run) -> str:
    """A rollout to every device; not started."""
    made: str = ask(run, "rollout", "create", "--release", RELEASE, "--selector", "site=lab")["id"]
    return made


def _begin(run: Run, rollout: str) -> None:
    """Start it, and wait until the engine has opened its stage."""
    ask(run, "rollout", "start", rollout)
    deadline = time.monotonic() + 20
    while ask(run, "rollout", "show", rollout)["stages"][0]["state"] != "open" and time.monotonic() < deadline:
        time.sleep(0.05)


def test_a_medium_is_whole(run: Run, served: Home, rollout: str, tmp_path: Path) -> None:
    """Orders, trust and chunks lie where a device looks for them; a second command adds to them."""
    _begin(run, rollout)
    made = ask(run, "rollout", "offline", rollout, DEVICES[0], "--to", tmp_path, "--until", "2d")
    until = datetime.fromisoformat(made["until"])
    assert abs(until - datetime.now(UTC) - timedelta(days=2)) < timedelta(minutes=5)
    assert until < datetime.fromisoformat(made["bring_by"])
    code, out, err = run("rollout", "offline", rollout, DEVICES[1], "--to", tmp_path)
    assert (code, err) == (0, "")
    assert "does not reach them" in out
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {f"announce/{rollout}.json", "trust/timestamp.json", "trust/1.root.json"} <= files
    assert {name for name in files if name.startswith("offer/")} == {f"offer/{d}/{rollout}.json" for d in DEVICES[:2]}
    stored = {path.name for path in served.chunks.glob("*/*")}
    assert {path.name for path in (tmp_path / "chunks").iterdir()} == stored
    assert json.loads((tmp_path / "offer" / DEVICES[0] / f"{rollout}.json").read_bytes())["signatures"]
    run("rollout", "abort", rollout)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--until", "0"], 2, "above 0"),
        (["--until", "soon"], 2, "expected a duration"),
        ([], 5, "expected running"),
    ],
    ids=["no time", "no duration", "not started"],
)
def test_what_cannot_be_ordered(
    run: Run, rollout: str, tmp_path: Path, words: list[str], code: int, sentence: str
) -> None:
    """One sentence and the code that fits; there is no offer on the medium."""
    found, _, err = run("rollout", "offline", rollout, DEVICES[0], "--to", tmp_path, *words)
    assert (found, sentence in err) == (code, True), err
    assert not (tmp_path / "offer").exists()


def test_places_that_cannot_hold_a_medium(run: Run, served: Home, rollout: str, tmp_path: Path) -> None:
    """The home itself, and a file."""
    code, _, err = run("rollout", "offline", rollout, DEVICES[0], "--to", served.path / "stick")
    assert (code, "inside the home" in err) == (4, True)
    (tmp_path / "file").touch()
    code, _, err = run("rollout", "offline", rollout, DEVICES[0], "--to", tmp_path / "file")
    assert code == 5, err


def test_a_medium_that_takes_no_trust_costs_no_orders(run: Run, rollout: str, tmp_path: Path) -> None:
    """Nothing is signed for it: the device counts as offered nothing."""
    _begin(run, rollout)
    (tmp_path / "trust").touch()
    code, _, err = run("rollout", "offline", rollout, DEVICES[2], "--to", tmp_path)
    assert (code, "trust" in err) == (5, True), err
    told = ask(run, "device", "explain", DEVICES[2], "--rollout", rollout)["sentences"]
    assert not any("offer" in sentence for sentence in told), told
    run("rollout", "abort", rollout)


def test_longer_than_the_signer_allows(run: Run, rollout: str, tmp_path: Path) -> None:
    """The signer's sentence names the setting; chunks may be there, orders are not."""
    _begin(run, rollout)
    code, _, err = run("rollout", "offline", rollout, DEVICES[2], "--to", tmp_path, "--until", "91d")
    assert (code, "offline_max_s" in err) == (4, True), err
    assert not (tmp_path / "offer").exists()
    run("rollout", "abort", rollout)
