"""The section of ``device.toml`` that says when its owner lets the device be changed, and in which time zone."""

from datetime import time
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from device_client.config_network import Section
from protocol.windows import MAX_WINDOW_MINUTES, Day


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError) as error:
        raise ValueError(f"time zone {name[:60]!r}: expected an IANA name such as Europe/Oslo") from error
    return name


ZoneName = Annotated[str, AfterValidator(_zone)]


class WindowSection(Section):
    """When the device may be changed, every week.

    Attributes:
        start: Local wall time in ``timezone``.
        minutes: How long it stays open, by elapsed time.
        timezone: IANA name; the device's by default.
    """

    days: Annotated[tuple[Day, ...], Field(min_length=1)]
    start: time
    minutes: Annotated[int, Field(gt=0, le=MAX_WINDOW_MINUTES)]
    timezone: ZoneName | None = None
