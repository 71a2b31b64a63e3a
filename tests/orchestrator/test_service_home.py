"""A damaged home: ``serve`` says so in one sentence before it starts anything."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.config import Home
from tests.orchestrator.cli.homes import make_home
from tests.orchestrator.cli.test_main import assert_sentence

SERVE = (sys.executable, "-m", "orchestrator.cli.main", "serve", "--home")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home that is never served."""
    return make_home(tmp_path_factory.mktemp("fleet") / "home")


@pytest.fixture
def home(whole: Home, tmp_path: Path) -> Home:
    """A copy of it to damage."""
    shutil.copytree(whole.path, tmp_path / "home")
    return Home(tmp_path / "home")


def serve(home: Home, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SERVE, str(home.path)], capture_output=True, text=True, timeout=40, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    ("damage", "code", "says"),
    [
        (lambda home: home.config.write_bytes(b"\xcc\xff"), 2, "config.toml: not TOML"),
        (lambda home: home.admin_token.unlink(), 3, "admin token is missing"),
        (lambda home: home.admin_token.write_bytes(b"\xcc\xff"), 4, "admin token is not text"),
        (lambda home: (home.tls / "broker.pem").unlink(), 3, "broker.pem: is missing"),
        (lambda home: (home.tls / "broker.key").write_bytes(b""), 1, "broker.key: expected an unencrypted"),
        (lambda home: (home.tls / "orch-delivery.pem").write_bytes(b""), 1, "orch-delivery.pem: expected a"),
        (lambda home: shutil.copy(home.tls / "viewer.key", home.tls / "orch-ingest.key"), 1, "is not the key of"),
        (lambda home: shutil.copy(home.devices_ca, home.services_ca), 1, "orch-delivery.pem: not issued by"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_home_is_said_before_the_broker_starts(
    home: Home, damage: Callable[[Home], object], code: int, says: str
) -> None:
    """No half start: one sentence is all that happens."""
    damage(home)
    done = serve(home)
    assert done.returncode == code
    assert_sentence(done.stderr)
    assert says in done.stderr
    assert not list(home.broker.iterdir())
