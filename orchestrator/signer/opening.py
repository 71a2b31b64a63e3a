"""Which room signs for a home, and that there is one: two would sign different messages under one number."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from orchestrator.config import Home, Settings
from orchestrator.private_files import hold_lock
from orchestrator.signer.client import SignerClient
from orchestrator.signer.seam import SigningRoom
from orchestrator.signer.signer import Signer


@contextlib.contextmanager
def open_room(home: Home, settings: Settings) -> Iterator[SigningRoom]:
    """The signer's process where ``config.toml`` names its socket, otherwise its keys in this one. Blocking.

    Raises:
        ConflictError: Another signer has the keys.
        OperationError: A key, the marks, the facts or the log are not as they must be.
    """
    path = home.signer_socket(settings)
    if path is not None:
        client = SignerClient(path, settings.signer.deadline_s)
        try:
            yield client
        finally:
            client.close()
        return
    with open_here(home, settings) as signer:
        yield signer


@contextlib.contextmanager
def open_here(home: Home, settings: Settings) -> Iterator[Signer]:
    """The keys in this process, and nobody else's hand on them; raises as ``open_room``. Blocking."""
    with alone_in(home.signer):
        signer = Signer.open(home, settings)
        try:
            yield signer
        finally:
            signer.close()


def alone_in(folder: Path) -> contextlib.AbstractContextManager[None]:
    """The lock of a signer's folder; raises as ``hold_lock``."""
    return hold_lock(
        folder / "signer.lock",
        f"{folder}: another signer has these keys, a 'flagship signer' or a 'flagship serve' that signs by itself; "
        "stop it first, or name its socket in config.toml",
    )
