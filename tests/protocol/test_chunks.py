"""The arithmetic of chunks and pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.chunks import MAX_CIPHERTEXT_BYTES, PIECE_BYTES, piece_lengths
from protocol.topics import RULES, Kind


@given(st.integers(1, 64 * 2**20))
def test_pieces_add_up_and_only_the_last_is_short(total: int) -> None:
    """Pieces make up the whole; each but the last is full and none is empty."""
    lengths = piece_lengths(total)
    assert sum(lengths) == total
    assert all(length == PIECE_BYTES for length in lengths[:-1])
    assert 0 < lengths[-1] <= PIECE_BYTES


@pytest.mark.parametrize("total", [0, -1])
def test_an_empty_manifest_has_no_pieces(total: int) -> None:
    """A sealed manifest is never empty; asking for its pieces is a caller's bug."""
    with pytest.raises(ValueError, match="not empty"):
        piece_lengths(total)


def test_the_largest_ciphertext_fits_its_topic() -> None:
    """A raw body of the largest chunk with its tag is within the topic's cap."""
    assert RULES[Kind.CHUNK].max_bytes >= MAX_CIPHERTEXT_BYTES
