"""Which token a command speaks with: that of the environment, of a file that was named, or the home's own.

Never one from the command line: everybody on the machine can read that, and shells write it down. What was chosen and
is damaged is an error; falling back to the home's token would let somebody act as the admin who did not mean to.
"""

import os
from pathlib import Path

from typer._click.globals import get_current_context

from orchestrator.errors import NotAllowedError, NotFoundError, UsageError
from orchestrator.model.actor import looks_like_token

TOKEN, TOKEN_FILE = "FLAGSHIP_TOKEN", "FLAGSHIP_TOKEN_FILE"
_MAX_TOKEN_BYTES = 256


def choose_token(admin_token: Path) -> str:
    """The token.

    Args:
        admin_token: The home's.

    Raises:
        UsageError: A token was named in a file's place.
        NotFoundError: The file is missing.
        NotAllowedError: It cannot be read, or others can read it too, or it holds no token.
    """
    if TOKEN in os.environ:
        return _check(os.environ[TOKEN][: _MAX_TOKEN_BYTES + 1], f"{TOKEN} in the environment")
    named = _named_file()
    if named is None:
        return _read(admin_token, "the admin token", "make a home with 'flagship init DIR'")
    return _read(named, "the token", f"name another with --token-file or {TOKEN_FILE}")


def _named_file() -> Path | None:
    """What ``--token-file`` before the noun says, or else the environment."""
    context = get_current_context(silent=True)
    given = context.find_root().params.get("token_file") if context else None
    text = os.environ.get(TOKEN_FILE) if given is None else str(given)
    if text is not None and looks_like_token(text):
        raise UsageError("--token-file: expected a file, found a token; revoke it, for it was seen, and name a file")
    if text == "":
        raise NotAllowedError(f"{TOKEN_FILE} in the environment: is empty; name a file, or unset it")
    return None if text is None else Path(text)


def _read(file: Path, what: str, remedy: str) -> str:
    try:
        if file.stat().st_mode & 0o077:
            raise NotAllowedError(f"{file}: others may read {what}; run 'chmod 600 {file}'")
        with file.open("rb") as source:
            raw = source.read(_MAX_TOKEN_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"{file}: {what} is missing; {remedy}") from error
    except PermissionError as error:
        raise NotAllowedError(f"{file}: this user may not read {what}") from error
    except OSError as error:
        raise NotAllowedError(f"{file}: {what} cannot be read: {error.strerror}") from error
    return _check(raw.decode("latin-1"), str(file))


def _check(text: str, place: str) -> str:
    token = text.strip()
    if len(text) > _MAX_TOKEN_BYTES or not token or not token.isascii() or not token.isprintable():
        raise NotAllowedError(f"{place}: expected a token in one line, found none")
    return token
