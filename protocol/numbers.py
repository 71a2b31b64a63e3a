"""Whole numbers that cross a boundary, bounded where they come in.

Up to 2**53 - 1 every JSON reader (RFC 8259, 6), SQLite's INTEGER and Python agree on a number. A larger one is valid
JSON and fails only where it is stored: one signed report would end the batch that it is in.
"""

from typing import Annotated

from pydantic import Field

MAX_NUMBER = 2**53 - 1
MAX_COUNTER = 2**31 - 1

Count = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
"""How many, or a number that starts at 0."""
Ordinal = Annotated[int, Field(ge=1, le=MAX_NUMBER)]
"""Which one, from 1."""
Counter = Annotated[int, Field(ge=0, le=MAX_COUNTER)]
"""A security counter. Devices never go below one that they committed, so a slip of the finger must leave room above."""
