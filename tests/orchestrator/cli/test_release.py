"""The release verbs: create works offline, the others are clients of serve."""

import json
import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli.main import main
from orchestrator.cli.release import app
from orchestrator.errors import (
    ConflictError,
    NotAllowedError,
    NotFoundError,
    OperationError,
    UnreachableError,
    UsageError,
)
from orchestrator.package import PackageReader
from tests.orchestrator.publisher.workshop import make_publisher

TOKEN = "t0ken"


@dataclass
class Served:
    """What the server answers, and what it was asked."""

    status: int = 200
    answer: object = field(default_factory=dict)
    asked: list[tuple[str, str, str, bytes]] = field(default_factory=list)


@contextmanager
def serving(served: Served) -> Iterator[int]:
    """A real HTTP server on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            served.asked.append((self.command, self.path, self.headers.get("Authorization", ""), body))
            raw = json.dumps(served.answer).encode()
            self.send_response(served.status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def make_home(path: Path, port: int = 1) -> Path:
    """A home with settings, token and release keys."""
    home = path / "home"
    make_publisher(home, start=datetime.now(UTC))
    (home / "config.toml").write_text(f'fleet = "harbour"\nproduct = "gateway"\n[api]\nport = {port}\n')
    (home / "admin.token").write_text(TOKEN + "\n")
    (home / "admin.token").chmod(0o600)
    return home


def make_image(path: Path) -> Path:
    """Something to release."""
    image = path / "image"
    (image / "bin").mkdir(parents=True)
    (image / "bin" / "app").write_bytes(b"#!/bin/sh\n" * 100)
    return image


def run(*words: object) -> Result:
    """Run ``flagship release``."""
    return CliRunner().invoke(app, [str(word) for word in words])


def create(path: Path, home: Path, *more: object) -> Result:
    """Create gateway/1.1.0."""
    output = path / "out.package"
    image = path / "image"
    return run("create", image, "--version", "1.1.0", "--hardware", "rev-b", "--home", home, "-o", output, *more)


def test_create_writes_a_package(tmp_path: Path) -> None:
    """The product comes from the home, the words of the command are in the package's metadata."""
    make_image(tmp_path)
    (tmp_path / "image" / "empty").mkdir()
    more = ("--requires", "os=7", "--min-battery", "40", "--counter", "3", "--hardware", "rev-c")
    result = create(tmp_path, make_home(tmp_path), *more)
    assert result.exit_code == 0, result.output
    assert "created gateway/1.1.0" in result.output
    assert "not carried: 1 folders" in result.output
    with PackageReader(tmp_path / "out.package") as package:
        assert str(package.header.product) == "gateway"
        targets = json.loads(package.read("trust/2.releases-gateway.json"))["signed"]["targets"]
    custom = targets["gateway/1.1.0/manifest"]["custom"]
    assert (custom["hardware"], custom["requires"], custom["counter"]) == (["rev-b", "rev-c"], {"os": "7"}, 3)
    assert custom["policy"]["min_battery_percent"] == 40


def test_create_says_what_deltas_there_are(tmp_path: Path) -> None:
    """How many and how large, where former versions were named; no word and no bar elsewhere."""
    data = random.Random(1).randbytes(100_000)
    image, old = make_image(tmp_path), tmp_path / "old"
    old.mkdir()
    (old / "data").write_bytes(data)
    (image / "data").write_bytes(data[:50_000] + b"X" + data[50_000:])
    result = create(tmp_path, make_home(tmp_path), "--delta-from", old, "--delta-from", image, "--delta-level", 3)
    assert result.exit_code == 0, result.output
    assert re.search(r"\n  [123] deltas of \d+ B\n", result.output)
    assert result.stderr == ""


def test_create_needs_no_home_when_everything_is_named(tmp_path: Path) -> None:
    """A publisher's machine has keys and no orchestrator."""
    make_image(tmp_path)
    home = make_home(tmp_path)
    more = ("--keys", home / "publisher", "--product", "gateway")
    result = create(tmp_path, tmp_path / "nowhere", *more)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("more", "error", "says"),
    [
        (("--version", "../1"), UsageError, "version '../1'"),
        (("--product", "a/b"), UsageError, "product 'a/b'"),
        (("--hardware", "#"), UsageError, "hardware '#'"),
        (("--component", "+"), UsageError, "component '\\+'"),
        (("--requires", "os"), UsageError, "--requires 'os': expected COMPONENT=VERSION"),
        (("--conflicts", "os=1", "--conflicts", "os=2"), UsageError, "each component once"),
        (("--product", "toaster"), NotFoundError, "know gateway"),
        (("--keys", "/none/such"), NotFoundError, "no such folder"),
        (("--home", "/none/such"), NotFoundError, "no fleet's home here"),
        (("-o", "/none/such/p"), NotFoundError, "does not exist"),
        (("--delta-from", "/none/such"), NotFoundError, "/none/such: no such file"),
        (("--delta-from", "/") * 9, UsageError, "--delta-from: expected at most 8, found 9"),
    ],
)
def test_create_refuses_bad_words(
    tmp_path: Path, more: tuple[str, ...], error: type[OperationError], says: str
) -> None:
    """Each is one sentence with its exit code, and nothing is written."""
    make_image(tmp_path)
    result = create(tmp_path, make_home(tmp_path), *more)
    assert isinstance(result.exception, error)
    with pytest.raises(error, match=says):
        raise result.exception
    assert not list(tmp_path.glob("*.package*"))


def test_publish_streams_the_package(tmp_path: Path) -> None:
    """Serve gets the very bytes, with the token of the home."""
    make_image(tmp_path)
    served = Served(answer={"id": "gateway/1.1.0", "published_bytes": 12})
    with serving(served) as port:
        home = make_home(tmp_path, port)
        assert create(tmp_path, home).exit_code == 0
        result = run("publish", tmp_path / "out.package", "--home", home)
    assert result.exit_code == 0, result.output
    assert "published gateway/1.1.0" in result.output
    package = (tmp_path / "out.package").read_bytes()
    assert served.asked == [("POST", "/api/v1/releases", f"Bearer {TOKEN}", package)]


def test_publish_refuses_a_damaged_package_before_asking(tmp_path: Path) -> None:
    """What is no package is not sent."""
    (tmp_path / "p").write_bytes(b"FLAGPKG1 and nothing else that would make sense to anybody at all........")
    result = run("publish", tmp_path / "p", "--home", make_home(tmp_path))
    assert isinstance(result.exception, OperationError)
    assert "damaged" in str(result.exception)


def test_list_and_show(tmp_path: Path) -> None:
    """A table for people, JSON for programs."""
    row = {
        "id": "gateway/1.1.0",
        "component": "app",
        "counter": 0,
        "state": "published",
        "image_bytes": 1_000_000,
        "chunk_bytes": 500_000,
        "imported_at": "2026-11-24T12:00:00Z",
        "brokers": [{"broker": "main", "chunks": "mirrors-only", "missing_bytes": 9, "why": "needs 9 B more"}],
    }
    served = Served(answer={"items": [row], "next": None})
    with serving(served) as port:
        home = make_home(tmp_path, port)
        table = run("list", "--home", home)
        listed = run("list", "--home", home, "-o", "json")
        served.answer = row
        shown = run("show", "gateway/1.1.0", "--home", home, "-o", "json")
        told = run("show", "gateway/1.1.0", "--home", home)
    assert "gateway/1.1.0" in table.output and "mirrors-only" in table.output
    assert json.loads(listed.output) == [row]
    assert json.loads(shown.output) == row
    assert "published" in told.output
    paths = [path for _, path, _, _ in served.asked]
    assert paths[2:] == ["/api/v1/releases/gateway/1.1.0"] * 2


@pytest.mark.parametrize(
    ("status", "answer", "error", "says"),
    [
        (404, {"detail": "release gateway/9: unknown; see list", "exit_code": 3}, NotFoundError, "unknown"),
        (401, {"detail": "token: not the admin token", "exit_code": 4}, NotAllowedError, "admin token"),
        (409, {"detail": "release is there", "exit_code": 5}, ConflictError, "is there"),
        (500, "what", UnreachableError, "status 500"),
    ],
)
def test_a_refusal_keeps_its_sentence_and_exit_code(
    tmp_path: Path, status: int, answer: object, error: type[OperationError], says: str
) -> None:
    """What serve refused, the command says in serve's words."""
    with serving(Served(status, answer)) as port:
        result = run("show", "gateway/9", "--home", make_home(tmp_path, port))
    assert type(result.exception) is error
    assert says in str(result.exception)


def test_no_serve_is_one_sentence(tmp_path: Path) -> None:
    """Exit code 9, and how to start it."""
    result = run("list", "--home", make_home(tmp_path))
    assert isinstance(result.exception, UnreachableError)
    assert "flagship serve" in str(result.exception)


def test_a_release_needs_product_and_version(tmp_path: Path) -> None:
    """What is no name is refused before serve is asked."""
    result = run("show", "gateway", "--home", make_home(tmp_path))
    assert isinstance(result.exception, UsageError)


def test_a_refusal_is_one_line_and_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the program itself: a version twice is a conflict, said in one line."""
    image, home = make_image(tmp_path), make_home(tmp_path)
    words = ["release", "create", str(image), "--version", "1.1.0", "--hardware", "rev-b", "--home", str(home)]
    assert main([*words, "-o", str(tmp_path / "a.package")]) == 0
    assert main([*words, "-o", str(tmp_path / "b.package")]) == 5
    said = capsys.readouterr().err
    assert said.startswith("flagship: release gateway/1.1.0: this version is in the metadata already")
    assert said.count("\n") == 1
    assert not (tmp_path / "b.package").exists()
