"""The two files of enrolment."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from protocol.enrolment import (
    BrokerAddress,
    ConnectionTarget,
    EnrolmentAnswer,
    EnrolmentAnswers,
    EnrolmentRequest,
    MirrorAddress,
)

PEM = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
REQUEST: dict[str, Any] = {
    "device": "dev1",
    "product": "gateway",
    "hardware": "rev-a",
    "csr": PEM,
    "content_key": "A" * 43 + "=",
}
ANSWER: dict[str, Any] = {
    "fleet": "north",
    "device": "dev1",
    "certificate": PEM,
    "ca": PEM,
    "root": "{}",
    "brokers": [{"host": "127.0.0.1", "port": 8883}],
}


def test_request_and_answers_read_back() -> None:
    """Both files are JSON that reads back as it was."""
    request = EnrolmentRequest(**REQUEST)
    assert EnrolmentRequest.model_validate_json(request.model_dump_json()) == request
    answers = EnrolmentAnswers(answers=[EnrolmentAnswer(**ANSWER)])
    assert EnrolmentAnswers.model_validate_json(answers.model_dump_json()) == answers


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (EnrolmentRequest, {**REQUEST, "device": "a/b"}),
        (EnrolmentRequest, {**REQUEST, "device": "#"}),
        (EnrolmentRequest, {**REQUEST, "content_key": "short"}),
        (EnrolmentRequest, {**REQUEST, "csr": "x" * 20_000}),
        (EnrolmentRequest, {**REQUEST, "v": 2}),
        (EnrolmentAnswer, {**ANSWER, "brokers": []}),
        (EnrolmentAnswer, {**ANSWER, "fleet": "+"}),
        (EnrolmentAnswers, {"answers": []}),
        (BrokerAddress, {"host": "h", "port": 0}),
        (BrokerAddress, {"host": "h", "port": 65536}),
        (BrokerAddress, {"host": "", "port": 1}),
    ],
)
def test_what_is_out_of_bounds_is_refused(model: type[BaseModel], fields: dict[str, Any]) -> None:
    """A hostile request neither names a device with a topic in it nor fills the disk."""
    with pytest.raises(ValidationError):
        model(**fields)


def test_neither_file_has_room_for_a_private_key() -> None:
    """No field of either file is meant for a secret."""
    names = set(EnrolmentRequest.model_fields) | set(EnrolmentAnswer.model_fields)
    assert not [name for name in names if "private" in name or "secret" in name]


@pytest.mark.parametrize(
    "url",
    ["https://m", "https://mirror.example:8443", "https://[::1]:1/a/b", "https://m.example/ota/%20x"],
)
def test_addresses_of_mirrors(url: str) -> None:
    """Plain https, with a port and a path where there are any; a slash at the end is nobody's business."""
    assert MirrorAddress(url=url).url == url
    assert MirrorAddress(url=url + "/").url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://mirror.example", "ftp://mirror.example", "//mirror.example", "mirror.example", "https://", "https:///x",
        "https://user:secret@mirror.example", "https://mirror.example?a=b", "https://mirror.example/#x",
        "https://mirror.example:0", "https://mirror.example:x", "https://mirror.example:70000", "https://m.example/a b",
        "https://m.example/\r\nHost: x", "https://m\u00fc.example", "https://m/" + "x" * 500,
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_mirror(url: str) -> None:
    """Without TLS, with a password in it, or with what breaks a request line: refused, and the address is not said."""
    with pytest.raises(ValidationError) as refused:
        MirrorAddress(url=url)
    assert "secret" not in refused.value.errors()[0]["msg"]


def test_mirrors_are_few_and_absent_without_a_trace() -> None:
    """At most eight; where there are none, the bytes are what they were before mirrors existed."""
    fields: dict[str, Any] = {"fleet": "north", "version": 1, "ca": PEM, "brokers": ANSWER["brokers"]}
    mirrors = [{"url": f"https://m{number}.example"} for number in range(9)]
    assert "mirrors" not in ConnectionTarget(**fields).model_dump_json()
    assert len(ConnectionTarget(**fields, mirrors=mirrors[:8]).mirrors) == 8
    with pytest.raises(ValidationError):
        ConnectionTarget(**fields, mirrors=mirrors)
