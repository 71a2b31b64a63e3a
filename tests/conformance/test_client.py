"""The conformance entry point speaks the suite's command line, with the device's own verification behind it."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadLengthMismatchError

from tests.conformance.client import download
from tests.protocol.trust.repository import PRODUCT, RELEASES, Repository

ROOT = Path(__file__).parents[2]
CLIENT = Path(__file__).with_name("client.py")
PATH = f"{PRODUCT}/1.1.0/manifest"


class Suite:
    """A repository on a server and a client with an empty folder, as the suite sets them up."""

    def __init__(self, place: Path) -> None:
        self.repository = Repository()
        now = datetime.now(UTC).replace(microsecond=0)
        for role in (self.repository.root, self.repository.targets, self.repository.releases):
            role.expires = now + timedelta(days=30)
        self.repository.snapshot.expires = self.repository.timestamp.expires = now + timedelta(days=3)
        self.repository.add_release()
        self.served = place / "served"
        self.metadata, self.targets = place / "metadata", place / "targets"
        for folder in (self.served / "targets" / PRODUCT / "1.1.0", self.metadata, self.targets):
            folder.mkdir(parents=True)
        self.root = place / "initial_root.json"
        self.root.write_bytes(self.repository.root_bytes())
        self.publish()

    def publish(self) -> None:
        """Put what the repository signs now where the server reads."""
        for name, data in self.repository.files().items():
            (self.served / name).write_bytes(data)
        digest = self.repository.releases.targets[PATH].hashes["sha256"]
        (self.served / "targets" / PRODUCT / "1.1.0" / f"{digest}.manifest").write_bytes(b"1.1.0")

    def run(self, *arguments: str) -> int:
        """One command of the client; its exit code."""
        command = [sys.executable, str(CLIENT), "--metadata-dir", str(self.metadata), *arguments]
        done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=60)
        assert b"Traceback" not in done.stderr
        return done.returncode

    def refresh(self, url: str) -> int:
        """The suite's refresh."""
        return self.run("--metadata-url", f"{url}/", "refresh")

    def download(self, url: str, name: str = PATH, end: str = "/") -> int:
        """The suite's download; its addresses end in a slash."""
        into = ("--target-dir", str(self.targets), "--target-base-url", f"{url}/targets{end}")
        return self.run("--metadata-url", f"{url}{end}", "--target-name", name, *into, "download")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Silent, and as strict as the suite's: a path with an empty part names nothing."""

    def do_GET(self) -> None:
        """A file, or 404."""
        if "//" in self.path:
            self.send_error(404)
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    """A new client."""
    return Suite(tmp_path)


@pytest.fixture
def url(suite: Suite) -> Iterator[str]:
    """Where the repository is served."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *args: Handler(*args, directory=str(suite.served))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_init_refresh_download(suite: Suite, url: str) -> None:
    """Exit 0 three times; unversioned metadata files and the verified target are where the suite looks."""
    assert suite.run("init", str(suite.root)) == 0
    assert suite.refresh(url) == 0
    found = {path.name for path in suite.metadata.glob("*.json")}
    assert found >= {"root.json", "timestamp.json", "snapshot.json", "targets.json"}
    assert suite.download(url) == 0
    assert [path.read_bytes() for path in suite.targets.iterdir()] == [b"1.1.0"]
    assert (suite.metadata / f"{RELEASES}.json").is_file()
    assert suite.download(url, f"{PRODUCT}/9.9.9/manifest") == 1


@pytest.mark.parametrize("end", ["", "/"], ids=["no slash", "slash"])
def test_an_address_may_end_in_a_slash(suite: Suite, url: str, end: str) -> None:
    """One slash stands between an address and a name, whichever of the two brought it."""
    suite.run("init", str(suite.root))
    assert suite.download(url, end=end) == 0
    assert [path.read_bytes() for path in suite.targets.iterdir()] == [b"1.1.0"]


def test_a_rollback_is_refused_after_the_cache_was_wiped(suite: Suite, url: str) -> None:
    """The device's floors stand behind the client: python-tuf alone would start anew and take the older set."""
    older = dict(suite.repository.files())
    suite.repository.bump()
    suite.publish()
    suite.run("init", str(suite.root))
    assert suite.download(url) == 0
    for path in suite.metadata.glob("*.json"):
        path.unlink()
    suite.run("init", str(suite.root))
    for name, data in older.items():
        (suite.served / name).write_bytes(data)
    assert suite.refresh(url) == 1


def test_expired_metadata_and_a_changed_target_are_refused(suite: Suite, url: str) -> None:
    """Exit 1, and nothing of it is kept."""
    suite.run("init", str(suite.root))
    for file in (suite.served / "targets").rglob("*.manifest"):
        file.write_bytes(b"other")
    assert suite.download(url) == 1
    assert not list(suite.targets.iterdir())
    suite.repository.timestamp.expires = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)
    suite.repository.timestamp.version += 1
    suite.publish()
    assert suite.refresh(url) == 1


def test_a_hash_that_nobody_knows_is_refused(suite: Suite, url: str) -> None:
    """Exit 1 and one line; a hash that cannot be computed is never left out."""
    hashes = suite.repository.releases.targets[PATH].hashes
    hashes["unknown"] = hashes["sha256"]
    suite.publish()
    suite.run("init", str(suite.root))
    assert suite.download(url) == 1
    assert not list(suite.targets.iterdir())


def test_a_target_is_read_no_further_than_its_length(suite: Suite, url: str) -> None:
    """A longer file is refused by its length, before its hash is asked, though it begins with what was signed."""
    target = suite.repository.releases.targets[PATH]
    for file in (suite.served / "targets").rglob("*.manifest"):
        file.write_bytes(b"1.1.0" + bytes(1_000))
    with pytest.raises(DownloadLengthMismatchError):
        download(target, f"{url}/targets/", suite.targets)
    assert not list(suite.targets.iterdir())
