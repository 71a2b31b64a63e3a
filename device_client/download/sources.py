"""Where chunks come from. Every source is equally untrusted; what it gives is verified by the store.

A source hands out what came of one window and says nothing of why the rest did not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Collected:
    """What came of one window.

    Attributes:
        chunks: Ciphertext by id, unverified.
        gone: The source itself went away: what is absent was not lost, it was never sent.
        delay_s: From asking to the first sign of an answer, if the source measures it; windows grow by it.
    """

    chunks: dict[str, bytes]
    gone: bool = False
    delay_s: float | None = field(default=None, compare=False)


class ChunkSource(Protocol):
    """Gives ciphertexts by id."""

    @property
    def name(self) -> str:
        """For people and logs: ``mqtt``, an address, a directory."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether there is any use in asking now."""
        ...

    async def ready(self) -> None:
        """Wait until there is any use in asking."""
        ...

    async def collect(self, cids: Sequence[str], silence_s: float) -> Collected:
        """Ask for chunks and wait until all have come, nothing came for ``silence_s``, or the source is gone.

        May be called for two windows at a time that have no chunk in common.
        """
        ...

    async def release(self) -> None:
        """Nothing more is asked for at present."""
        ...
