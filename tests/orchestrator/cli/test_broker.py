"""``flagship broker check`` against the broker of a running ``serve``."""

import json
from pathlib import Path

import pytest

from orchestrator.config import Home
from tests.orchestrator.cli.conftest import Run
from tests.orchestrator.cli.test_main import assert_sentence

QUICK = ("--megabytes", "4", "--topics", "100")


def test_the_broker_of_a_home_is_probed_while_it_serves(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table for people; the access list is proven with a certificate that is made for it, and gone afterwards."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, out, err = run("broker", "check", *QUICK)
    assert (code, err) == (0, "")
    assert "3 forgeries dropped" in out
    assert out.rstrip().endswith("windows of at most 32 chunks, QoS 1")
    assert list(tmp_path.iterdir()) == []


def test_another_broker_is_named_by_address(run: Run, served: Home) -> None:
    """Without a device's identity the access list is not judged."""
    settings = served.load()
    code, out, err = run(
        "broker",
        "check",
        "--host",
        "127.0.0.1",
        "--port",
        str(settings.broker.service_port),
        *QUICK,
        "-o",
        "json",
        "--timeout",
        "5",
    )
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["verdict"] == "fit with limits"
    verdicts = {one["probe"]: one["verdict"] for one in found["findings"]}
    assert verdicts["access list"] == "not probed"
    assert verdicts["read-back"] == "fit"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--host", "127.0.0.1", "--port", "1"), 9, "127.0.0.1:1: Connection refused"),
        (("--certificate", "a.pem"), 2, "--certificate and --key come together"),
        (("--device-key", "a.key"), 2, "--device-certificate and --device-key come together"),
        (("--certificate", "none.pem", "--key", "none.key"), 1, "none.pem"),
        (("--topics", "5"), 2, "--topics"),
        (("nowhere",), 3, "broker nowhere: not in config.toml, which has main"),
    ],
)
def test_what_cannot_be_is_one_sentence(run: Run, words: tuple[str, ...], code: int, says: str) -> None:
    """And an exit code."""
    found, out, err = run("broker", "check", *words)
    assert (found, out) == (code, "")
    assert says in err
    assert_sentence(err)


def test_the_brokers_of_a_fleet_are_listed_with_what_they_lack(run: Run) -> None:
    """Reached, and nothing is missing."""
    code, out, err = run("broker", "list", "-o", "json")
    assert (code, err) == (0, "")
    (broker,) = json.loads(out)
    assert (broker["name"], broker["connected"], broker["releases"], broker["why"]) == ("main", True, [], "")
