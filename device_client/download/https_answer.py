"""What a mirror answered to one request. Pure."""

from dataclasses import dataclass

import h11


@dataclass(frozen=True, slots=True)
class Answer:
    """What came for one request.

    Attributes:
        location, retry_after: Headers, empty where absent.
        delay_s: From asking until the first of it came.
        body: Of a 200 that is no larger than a chunk can be; else empty.
    """

    status: int
    location: str
    retry_after: str
    body: bytes
    delay_s: float = 0.0


def answer_of(head: h11.Response, body: bytes) -> Answer:
    """An answer by its head, and what is of use of its body."""
    return Answer(head.status_code, header(head, b"location"), header(head, b"retry-after"), body)


def header(head: h11.Response, name: bytes) -> str:
    """A header by its name in lower case; empty where absent."""
    return next((value.decode("latin-1") for key, value in head.headers if key == name), "")


def announced_bytes(head: h11.Response) -> int:
    """The length that a head announces; 0 where it does not."""
    text = header(head, b"content-length")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
