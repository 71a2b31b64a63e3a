"""Opening an offer's key: with the present content key, or with one from before a renewal."""

from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from device_client.transfer import Fetcher
from protocol.encryption import wrap_key
from protocol.errors import ContentError, ErrorCode
from tests.device_client.identities import SETTINGS

SHA256 = "ab" * 32


def test_a_key_that_was_wrapped_before_a_renewal_still_opens(tmp_path: Path) -> None:
    """As long as the former content key is kept; afterwards it is E_KEY, and the offer is wrapped anew by then."""
    former, present = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    keys = [present, former]
    nothing = cast(Any, None)
    fetcher = Fetcher(tmp_path, SETTINGS, "d1", lambda: keys, nothing, nothing, nothing, nothing, Random(1))
    for key in (present, former):
        wrapped = wrap_key(b"k" * 32, key.public_key(), release=SHA256, device="d1")
        assert fetcher._unwrap(wrapped, SHA256) == b"k" * 32
    keys.remove(former)
    with pytest.raises(ContentError) as refused:
        fetcher._unwrap(wrapped, SHA256)
    assert refused.value.code is ErrorCode.KEY
