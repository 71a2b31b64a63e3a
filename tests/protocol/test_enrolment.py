"""The two files of enrolment."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from protocol.enrolment import BrokerAddress, EnrolmentAnswer, EnrolmentAnswers, EnrolmentRequest

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
