"""Lists in pages: at most ``limit`` items and a cursor for the next ones. A page costs the same wherever it is."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, ConfigDict

MAX_LIMIT = 1000
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="items per page")]
Cursor = Annotated[str, Query(max_length=140, description="the 'next' of the page before")]


class Page(BaseModel):
    """One page; ``next`` is empty on the last one."""

    model_config = ConfigDict(extra="forbid")

    items: list[dict[str, Any]]
    next: str = ""


def page(items: Sequence[dict[str, Any]], limit: int, key: str) -> Page:
    """A page of what was found with ``limit + 1`` asked for.

    Args:
        key: The field that the list is ordered by.
    """
    shown = list(items[:limit])
    return Page(items=shown, next=str(shown[-1][key]) if len(items) > limit else "")
