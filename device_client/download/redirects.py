"""Where a mirror may send a device for a chunk. Pure."""

from dataclasses import dataclass, replace
from urllib.parse import urljoin, urlsplit

from device_client.download.https_line import Origin
from protocol.enrolment import MAX_URL

MAX_HOPS = 3


@dataclass(frozen=True, slots=True)
class Ask:
    """One chunk, and where to ask for it.

    Attributes:
        hops: Redirects that led here.
    """

    cid: str
    origin: Origin
    path: str
    hops: int = 0


def redirected(ask: Ask, location: str, *, elsewhere: bool) -> Ask | None:
    """Where a redirect leads; None where it may not be followed.

    Args:
        location: The header, as it came.
        elsewhere: Whether it may lead to another host; never to anything but https, never further than ``MAX_HOPS``.
    """
    printable = location.isascii() and location.isprintable() and " " not in location
    if ask.hops >= MAX_HOPS or not printable or not 0 < len(location) <= 4 * MAX_URL:
        return None
    try:
        parts = urlsplit(urljoin(f"https://{ask.origin}{ask.path}", location))
        origin = Origin(parts.hostname or "", parts.port or 443)
    except ValueError:
        return None
    if parts.scheme != "https" or not origin.host or "@" in parts.netloc:
        return None
    if origin.host != ask.origin.host and not elsewhere:
        return None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return replace(ask, origin=origin, path=path, hops=ask.hops + 1)
