"""A table between its markers in a page, and the words for what was measured on."""

from collections.abc import Mapping
from typing import Any


def between(page: str, begin: str, end: str, text: str) -> str:
    """The page with this text between two markers.

    Raises:
        ValueError: It has no such markers.
    """
    before, found, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"expected {begin} and {end}; put them where the table belongs")
    return f"{before}{begin}\n{text}\n{end}{after}"


def where(machine: Mapping[str, Any]) -> str:
    """Processor, cores, kernel and Python in one line."""
    return f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}"
