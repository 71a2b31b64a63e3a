"""The signer signs where the audit log ends, and never two logs."""

import asyncio

import pytest

from orchestrator.config import Home, Settings
from orchestrator.errors import ConflictError
from orchestrator.model.audit import AUDIT_HEAD_TYPE, FIRST, MAX_HEAD_BYTES, SignedHead
from orchestrator.signer.facts import read_audit_mark
from orchestrator.signer.request_log import check_log
from orchestrator.signer.signer import Signer
from protocol.clock import ManualClock
from protocol.directives import ANNOUNCEMENT_TYPE
from protocol.envelopes import open_envelope, parse, verify_with
from protocol.errors import EnvelopeError
from tests.orchestrator.signer.conftest import NOW
from tests.orchestrator.signer.test_server import asked, behind_a_socket

ONE, TWO = "1" * 64, "2" * 64


def opened(signer: Signer, envelope: bytes) -> SignedHead:
    """What it says, once its signature holds."""
    verify = verify_with(signer._keys.director.public_key)
    return open_envelope(envelope, MAX_HEAD_BYTES, AUDIT_HEAD_TYPE, verify, SignedHead)[0]


def test_a_head_names_the_one_before_it(signer: Signer) -> None:
    """By the director's key, with fleet and instant of the signer's own; no device takes it for an order."""
    first, second = signer.sign_head(5, ONE), signer.sign_head(9, TWO)
    assert opened(signer, first) == SignedHead(fleet="north", id=5, hash=ONE, at=NOW)
    assert opened(signer, second) == SignedHead(
        fleet="north", id=9, hash=TWO, former_id=5, former_hash=ONE, at=NOW
    )  # fmt: skip
    assert opened(signer, first).former_hash == FIRST
    with pytest.raises(EnvelopeError, match=r"expected application/vnd\.flagship\.announcement"):
        parse(first, MAX_HEAD_BYTES, ANNOUNCEMENT_TYPE)


@pytest.mark.parametrize(
    ("entry", "digest", "sentence"), [(5, TWO, "written anew"), (4, ONE, "taken out"), (1, TWO, "taken out")]
)
def test_another_log_is_not_signed(
    home: Home, signer: Signer, clock: ManualClock, entry: int, digest: str, sentence: str
) -> None:
    """Neither by this process nor after a restart; the refusal stands in the signer's own log."""
    signer.sign_head(5, ONE)
    with pytest.raises(ConflictError, match=sentence):
        signer.sign_head(entry, digest)
    signer.close()
    again = Signer.open(home, Settings(fleet="north"), clock)
    with pytest.raises(ConflictError, match=sentence):
        again.sign_head(entry, digest)
    assert opened(again, again.sign_head(5, ONE)).id == 5, "what was asked twice is signed twice"
    again.close()
    assert (home.signer / "requests.log").read_text().count('"refused":"misfit"') == 2
    assert check_log(home.signer / "requests.log")[0] == 4


def test_a_verifier_reads_what_the_signer_remembers(home: Home, signer: Signer) -> None:
    """Where it may; an absent or damaged file is no memory."""
    assert read_audit_mark(home.signer / "facts.json") is None
    signer.sign_head(5, ONE)
    mark = read_audit_mark(home.signer / "facts.json")
    assert mark is not None and (mark.entry, mark.digest) == (5, ONE)
    (home.signer / "facts.json").write_bytes(b"junk")
    assert read_audit_mark(home.signer / "facts.json") is None


async def test_over_the_socket(signer: Signer) -> None:
    """The same answers, refusals with their class."""
    async with behind_a_socket(signer) as path, asked(path) as client:
        envelope = await asyncio.to_thread(client.sign_head, 5, ONE)
        assert opened(signer, envelope).id == 5
        with pytest.raises(ConflictError, match="written anew"):
            await asyncio.to_thread(client.sign_head, 5, TWO)
