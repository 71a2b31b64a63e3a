"""``flagship status`` reads the retained status topics with the viewer's certificate."""

import json
import time

from orchestrator.config import Home
from tests.orchestrator.cli.conftest import DEVICES, Run
from tests.orchestrator.cli.test_main import assert_sentence


def test_status_shows_the_fleet(run: Run) -> None:
    """Devices and rollouts, for people and for programs."""
    deadline = time.monotonic() + 10
    found: dict[str, object] = {}
    while time.monotonic() < deadline and int(str(found.get("devices", 0))) < len(DEVICES):
        code, out, err = run("status", "-o", "json")
        assert (code, err) == (0, "")
        found = json.loads(out)
    assert found["fleet"] == "harbour"
    assert isinstance(found["rollouts"], list)
    code, out, _ = run("status")
    assert code == 0
    assert "fleet harbour: " in out


def test_a_missing_key_is_named(run: Run, served: Home) -> None:
    """Without the viewer's key nothing is read; the sentence names the file."""
    _, key = served.certificate("viewer")
    hidden = key.with_suffix(".hidden")
    key.rename(hidden)
    try:
        code, out, err = run("status")
    finally:
        hidden.rename(key)
    assert_sentence(err)
    assert (code, out) == (3, "")
    assert "viewer.key" in err
