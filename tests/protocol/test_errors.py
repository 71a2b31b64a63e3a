"""Errors: one root, one code each."""

import pytest

from protocol.errors import ContentError, EnvelopeError, ErrorCode, FlagshipError, ProtocolError, TrustError


@pytest.mark.parametrize("kind", [EnvelopeError, TrustError, ContentError])
def test_a_refusal_carries_its_code_and_says_it(kind: type[ProtocolError]) -> None:
    """Programs read the code, people one sentence; all have one root."""
    error = kind(ErrorCode.EXPIRED, "expired yesterday")
    assert (error.code, error.detail, str(error)) == (
        ErrorCode.EXPIRED,
        "expired yesterday",
        "E_EXPIRED: expired yesterday",
    )
    assert isinstance(error, FlagshipError)


def test_codes_are_the_words_on_the_wire() -> None:
    """A code's name is its value without the prefix, so that neither drifts."""
    assert all(code.value == f"E_{code.name}" for code in ErrorCode)
