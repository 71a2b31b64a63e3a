"""What the signer's signed heads say of the audit log, once their signatures hold. Pure."""

from collections.abc import Iterable, Mapping

from securesystemslib.signer import Key, Signature

from orchestrator.model.audit import AUDIT_HEAD_TYPE, MAX_HEAD_BYTES, Problem, SignedHead
from orchestrator.rollouts.verifying import Claim
from protocol.clock import rfc3339
from protocol.envelopes import open_envelope, verify_with
from protocol.errors import EnvelopeError, ErrorCode


def claims_of(
    envelopes: Iterable[bytes], keys: Mapping[str, Key], fleet: str
) -> tuple[list[SignedHead], list[Claim], list[Problem]]:
    """The heads that hold, what they say of entries, and what is wrong with the others.

    Args:
        keys: Director keys that the offline keys have listed, by id.
    """

    def verify(pae: bytes, signatures: Mapping[str, Signature]) -> None:
        known = [keyid for keyid in signatures if keyid in keys]
        if not known:
            raise EnvelopeError(ErrorCode.SIGNATURE, "message: not signed by a director of this fleet")
        verify_with(keys[known[0]])(pae, signatures)

    heads: list[SignedHead] = []
    claims: list[Claim] = []
    problems: list[Problem] = []
    for number, envelope in enumerate(envelopes, 1):
        try:
            head, _ = open_envelope(envelope, MAX_HEAD_BYTES, AUDIT_HEAD_TYPE, verify, SignedHead)
            if head.fleet != fleet:
                raise EnvelopeError(ErrorCode.SCOPE, f"message: of fleet {head.fleet}, expected {fleet}")
        except EnvelopeError as error:
            problems.append(Problem(0, f"signed head {number}: {error.detail}: it was changed, or is not the signer's"))
            continue
        heads.append(head)
        when = rfc3339(head.at)
        claims.append(Claim(head.id, head.hash, f"the head signed at {when}"))
        claims.append(Claim(head.former_id, head.former_hash, f"the head signed before that of {when}"))
    return heads, claims, problems
