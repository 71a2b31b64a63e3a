"""What is told apart from a name before it is said back."""

import pytest

from orchestrator.model.actor import TOKEN_PREFIX, looks_like_token


@pytest.mark.parametrize(
    ("text", "verdict"),
    [(f"{TOKEN_PREFIX}abc", True), ("FLT_abc", True), ("anna", False), ("anna-flt_", False), ("", False)],
)
def test_a_token_is_known_by_its_beginning(text: str, verdict: bool) -> None:
    """In capitals too."""
    assert looks_like_token(text) is verdict
