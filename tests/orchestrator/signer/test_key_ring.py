"""Several keys of one online role: which of them signs."""

from pathlib import Path

import pytest

from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.publisher.keys import create_signing_key
from orchestrator.signer.key_ring import KeyRing, open_keys
from tests.orchestrator.publisher.workshop import make_publisher


def test_the_newest_listed_key_signs(tmp_path: Path) -> None:
    """By number, not by name or age; files of other names are no keys of the role."""
    made = {n: create_signing_key(tmp_path / f"director-{n}.key").public_key.keyid for n in (10, 2)}
    made[1] = create_signing_key(tmp_path / "director.key").public_key.keyid
    create_signing_key(tmp_path / "director-x.key")
    ring = KeyRing(tmp_path)
    assert ring.newest("director").public_key.keyid == made[10]
    assert ring.choose("director", [made[1], made[2]]).public_key.keyid == made[2]
    with pytest.raises(ConflictError, match=r"none of its director keys is listed.*make director-4.key"):
        ring.choose("director", ["ab" * 32])
    with pytest.raises(NotFoundError, match=r"timestamp.key: the key is missing"):
        ring.newest("timestamp")


def test_a_signer_begins_with_the_keys_that_are_listed(tmp_path: Path) -> None:
    """A key that waits for its ceremony does not sign after a restart; without metadata the newest does."""
    make_publisher(tmp_path)
    signer, trust = tmp_path / "signer", tmp_path / "trust"
    first = open_keys(signer, trust)
    director = create_signing_key(signer / "director-2.key").public_key
    timestamp = create_signing_key(signer / "timestamp-2.key").public_key
    again = open_keys(signer, trust)
    assert (again.director.public_key, again.timestamp.public_key) == (
        first.director.public_key,
        first.timestamp.public_key,
    )
    (trust / "2.targets.json").write_text("damaged")
    assert open_keys(signer, trust).director.public_key == director
    assert open_keys(signer, tmp_path / "absent").timestamp.public_key == timestamp
