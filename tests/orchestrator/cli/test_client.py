"""The client over real sockets: deadlines, refusals, foreign servers, uploads in pieces."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestrator.cli.client import ApiClient
from orchestrator.config import Home
from orchestrator.errors import (
    ConflictError,
    HaltedError,
    NotAllowedError,
    NotFoundError,
    OperationError,
    TimedOutError,
    UnreachableError,
    UsageError,
)

TOKEN = "a-token-of-the-home"


@dataclass
class Served:
    """What the server answers next, and what it was asked."""

    status: int = 200
    answers: list[bytes] = field(default_factory=lambda: [b"{}"])
    asked: list[tuple[str, str, str, bytes]] = field(default_factory=list)


@contextmanager
def serving(served: Served) -> Iterator[int]:
    """An HTTP server on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            served.asked.append((self.command, self.path, self.headers.get("Authorization", ""), body))
            raw = served.answers.pop(0) if len(served.answers) > 1 else served.answers[0]
            self.send_response(served.status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def make_home(directory: Path, port: int) -> Home:
    """Only what a client reads."""
    home = Home(directory)
    home.config.write_text(f'fleet = "harbour"\n[api]\nport = {port}\n')
    home.admin_token.write_text(TOKEN + "\n")
    home.admin_token.chmod(0o600)
    return home


def test_every_request_carries_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no proxy of the environment sees it."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    served = Served()
    with serving(served) as port:
        client = ApiClient(make_home(tmp_path, port))
        client.get("/devices", group="", limit=2)
        client.post("/groups", {"name": "g"})
        client.put("/groups/g/devices/d")
        client.delete("/groups/g/devices/d")
    assert {authorization for _, _, authorization, _ in served.asked} == {f"Bearer {TOKEN}"}
    assert [(method, path) for method, path, _, _ in served.asked] == [
        ("GET", "/api/v1/devices?limit=2"),
        ("POST", "/api/v1/groups"),
        ("PUT", "/api/v1/groups/g/devices/d"),
        ("DELETE", "/api/v1/groups/g/devices/d"),
    ]
    assert json.loads(served.asked[1][3]) == {"name": "g"}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, OperationError), (2, UsageError), (3, NotFoundError), (4, NotAllowedError), (5, ConflictError),
        (6, HaltedError), (8, TimedOutError), (9, UnreachableError), (77, OperationError),
    ],
)  # fmt: skip
def test_a_refusal_keeps_its_sentence_and_code(tmp_path: Path, code: int, kind: type[OperationError]) -> None:
    """What the server says is what the person reads."""
    problem = json.dumps({"title": "x", "status": 400, "detail": "one sentence", "exit_code": code}).encode()
    with serving(Served(status=400, answers=[problem])) as port, pytest.raises(kind, match=r"^one sentence$") as caught:
        ApiClient(make_home(tmp_path, port)).get("/status")
    assert type(caught.value) is kind


@pytest.mark.parametrize("status", [200, 404, 500])
@pytest.mark.parametrize("raw", [b"<html>hello</html>", b"\xff\xfe"])
def test_a_foreign_server_is_recognised(tmp_path: Path, status: int, raw: bytes) -> None:
    """Something else on the port is named as such."""
    with serving(Served(status=status, answers=[raw])) as port:
        client = ApiClient(make_home(tmp_path, port))
        with pytest.raises(UnreachableError, match="something else"):
            client.get("/status")


def test_nobody_there(tmp_path: Path) -> None:
    """The address, and how to start serve."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(UnreachableError, match=rf"127.0.0.1:{port}; start it with 'flagship serve --home"):
        ApiClient(make_home(tmp_path, port)).get("/status")


def test_a_server_that_says_nothing_is_left(tmp_path: Path) -> None:
    """Every request has a deadline."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = ApiClient(make_home(tmp_path, silent.getsockname()[1]))
        with pytest.raises(TimedOutError, match="no answer within"):
            client._call("GET", "/status", timeout=0.1)


def test_a_server_that_hangs_up_is_named(tmp_path: Path) -> None:
    """A connection that ends without an answer is one sentence too."""

    def hang_up(listener: socket.socket) -> None:
        listener.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as rude:
        thread = threading.Thread(target=hang_up, args=(rude,))
        thread.start()
        with pytest.raises(UnreachableError, match="serve at http"):
            ApiClient(make_home(tmp_path, rude.getsockname()[1])).get("/status")
        thread.join()


def test_pages_are_followed_to_the_end(tmp_path: Path) -> None:
    """Items of all pages, in order; the cursor is sent back as it came."""
    pages = [{"items": [{"id": "a/1"}], "next": "a/1"}, {"items": [{"id": "b"}], "next": ""}]
    served = Served(answers=[json.dumps(page).encode() for page in pages])
    with serving(served) as port:
        found = list(ApiClient(make_home(tmp_path, port)).pages("/releases"))
    assert [item["id"] for item in found] == ["a/1", "b"]
    assert "cursor=a%2F1" in served.asked[1][1]


def test_an_upload_is_read_in_pieces(tmp_path: Path) -> None:
    """Every byte arrives with its length announced, and progress is told."""
    raw, told = bytes(range(256)) * 10_000, list[int]()
    (tmp_path / "package").write_bytes(raw)
    served = Served(answers=[b'{"id": "x"}'])
    with serving(served) as port:
        answer = ApiClient(make_home(tmp_path, port)).upload("/releases", tmp_path / "package", told.append)
    assert answer == {"id": "x"}
    assert served.asked[0][3] == raw
    assert told[-1] == len(raw)
    assert len(told) > 1


@pytest.mark.parametrize("raw", ["", " \n", "t\u00f6ken", "a\nb"])
def test_a_token_that_is_none_is_not_sent(tmp_path: Path, raw: str) -> None:
    """A damaged token file is named; its content is not."""
    home = make_home(tmp_path, 1)
    home.admin_token.write_text(raw)
    with pytest.raises(NotAllowedError, match="expected a token in one line"):
        ApiClient(home)


def test_a_token_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    """As ssh does; the sentence says what to run."""
    home = make_home(tmp_path, 1)
    home.admin_token.chmod(0o644)
    with pytest.raises(NotAllowedError, match="chmod 600"):
        ApiClient(home)


def test_a_missing_token_is_named(tmp_path: Path) -> None:
    """A home that is not whole."""
    home = make_home(tmp_path, 1)
    home.admin_token.unlink()
    with pytest.raises(NotFoundError, match=r"admin\.token"):
        ApiClient(home)
