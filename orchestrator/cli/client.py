"""The command line's way to ``flagship serve``: loopback HTTP with a token, the home's own by default.

Every failure becomes one sentence with an exit code; what the server refused keeps the server's sentence and code.
"""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from orchestrator.cli.token_choice import choose_token
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
    WaitingError,
)

PREFIX = "/api/v1"
TIMEOUT_S = 60.0
PLAN_TIMEOUT_S = 600.0
"""What looks at the whole fleet."""
UPLOAD_TIMEOUT_S = 3600.0
PAGE = 500
_PIECE = 1 << 20
_ERRORS: dict[int, type[OperationError]] = {
    error.exit_code: error
    for error in (
        OperationError,
        UsageError,
        NotFoundError,
        NotAllowedError,
        ConflictError,
        HaltedError,
        WaitingError,
        TimedOutError,
        UnreachableError,
    )
}


class ApiClient:
    """One fleet's API. Paths are those below ``/api/v1``."""

    def __init__(self, home: Home | Path) -> None:
        """Read the address and the token.

        Raises:
            NotFoundError: There is no home, or no token.
            NotAllowedError: The token cannot be read, or others can read it too.
        """
        self._home = home if isinstance(home, Home) else Home(home)
        settings = self._home.load()
        self._address = f"http://{settings.api.host}:{settings.api.port}"
        self._token = choose_token(self._home.admin_token)

    def get(self, path: str, **params: str | int) -> Any:  # noqa: ANN401 - JSON
        """GET; parameters that are empty are left out."""
        return self._call("GET", path, params={key: value for key, value in params.items() if value != ""})

    def post(self, path: str, body: object = None, *, timeout: float = TIMEOUT_S) -> Any:  # noqa: ANN401
        """POST a JSON body; the timeout is in seconds."""
        return self._call("POST", path, json={} if body is None else body, timeout=timeout)

    def put(self, path: str) -> Any:  # noqa: ANN401
        """PUT without a body."""
        return self._call("PUT", path)

    def delete(self, path: str) -> Any:  # noqa: ANN401
        """DELETE."""
        return self._call("DELETE", path)

    def pages(self, path: str, **params: str | int) -> Iterator[dict[str, Any]]:
        """Every item of a list, page after page."""
        cursor = ""
        while True:
            page = self.get(path, limit=PAGE, cursor=cursor, **params)
            yield from page["items"]
            cursor = page.get("next") or ""
            if not cursor:
                return

    def upload(self, path: str, file: Path, on_progress: Callable[[int], None] | None = None) -> Any:  # noqa: ANN401
        """POST a file's bytes as they are read; never the whole of it in memory.

        Args:
            on_progress: Told the bytes sent so far.
        """
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(file.stat().st_size)}
        return self._call("POST", path, content=_read(file, on_progress), headers=headers, timeout=UPLOAD_TIMEOUT_S)

    def _call(self, method: str, path: str, *, timeout: float = TIMEOUT_S, **words: Any) -> Any:  # noqa: ANN401
        headers = {"Authorization": f"Bearer {self._token}", **words.pop("headers", {})}
        # No certificate is trusted: the API is plain HTTP on loopback. A proxy of the environment is not for us.
        nothing_trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            with httpx.Client(base_url=self._address, verify=nothing_trusted, trust_env=False) as http:
                limits = httpx.Timeout(timeout, connect=5.0)
                response = http.request(method, PREFIX + path, headers=headers, timeout=limits, **words)
        except httpx.ConnectError as error:
            raise UnreachableError(
                f"no serve answers at {self._address}; start it with 'flagship serve --home {self._home.path}'"
            ) from error
        except httpx.TimeoutException as error:
            raise TimedOutError(f"serve at {self._address}: no answer within {timeout:.0f} s") from error
        except httpx.HTTPError as error:
            raise UnreachableError(f"serve at {self._address}: {str(error) or type(error).__name__}") from error
        return self._answer(response)

    def _answer(self, response: httpx.Response) -> Any:  # noqa: ANN401
        try:
            body = response.json() if response.content else None
        except ValueError as error:
            raise self._foreign(response) from error
        if response.is_success:
            return body
        if not isinstance(body, dict) or "detail" not in body:
            raise self._foreign(response)
        raise _ERRORS.get(body.get("exit_code", 1), OperationError)(str(body["detail"]))

    def _foreign(self, response: httpx.Response) -> OperationError:
        return UnreachableError(
            f"{self._address}: expected Flagship's API, found something else (status {response.status_code}); "
            "check [api] in config.toml"
        )


def _read(file: Path, on_progress: Callable[[int], None] | None) -> Iterator[bytes]:
    sent = 0
    with file.open("rb") as source:
        while piece := source.read(_PIECE):
            yield piece
            sent += len(piece)
            if on_progress:
                on_progress(sent)
