"""Figures as people write them in plans: ``15m``, ``5%``, ``2 GB``. Numbers alone are seconds, shares and bytes."""

import math
import re
from typing import Annotated

from pydantic import BeforeValidator, Field

MAX_DURATION_S = 3660 * 86_400
"""Ten years: beyond it is a slip, and in the end beyond the calendar."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)\Z")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)?\Z")
_BYTES = {
    None: 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip


def read_seconds(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``15m``, ``2h`` or ``1d``.

    Raises:
        ValueError: It is none of these, or longer than ten years.
    """
    found = _DURATION.match(text.strip())
    if not found:
        raise ValueError(f"{text[:40]!r}: expected a duration such as 90s, 15m, 2h or 1d")
    seconds = float(found[1]) * _SECONDS[found[2]]
    if seconds > MAX_DURATION_S:
        raise ValueError(f"{text[:40]!r}: expected at most {MAX_DURATION_S // 86_400}d")
    return seconds


def read_share(text: str) -> float:
    """A share of ``0.95`` or ``95%``.

    Raises:
        ValueError: It is not above 0 and up to 1.
    """
    number = text.strip()
    try:
        share = float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError(f"{text[:40]!r}: expected a share above 0 and up to 1, such as 0.95 or 95%")
    return share


def read_bytes(text: str) -> int:
    """Bytes of ``500``, ``20 MB`` or ``2 GiB``.

    Raises:
        ValueError: It is none of these.
    """
    found = _SIZE.match(text.strip())
    if not found:
        raise ValueError(f"{text[:40]!r}: expected a size such as 500 MB or 2 GiB")
    return math.floor(float(found[1]) * _BYTES[found[2]])


def _if_text(read: object, value: object) -> object:
    return read(value) if isinstance(value, str) and callable(read) else value


Seconds = Annotated[float, BeforeValidator(lambda value: _if_text(read_seconds, value)), Field(ge=0, le=365 * 86_400)]
Ratio = Annotated[float, BeforeValidator(lambda value: _if_text(read_share, value)), Field(gt=0, le=1)]
Bytes = Annotated[int, BeforeValidator(lambda value: _if_text(read_bytes, value)), Field(ge=1, le=2**60)]
