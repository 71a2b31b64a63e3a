"""May this end of the audit log be signed? Pure: what was signed before and what is asked in, the head out.

The signer sees a number and a hash, not the log. It never goes back and never signs one number twice for two hashes,
and every head names the one before it: so a log that was written anew contradicts a head that was signed earlier.
"""

from datetime import datetime

from orchestrator.errors import ConflictError
from orchestrator.model.audit import SignedHead
from orchestrator.signer.facts import AuditMark


def next_head(mark: AuditMark, fleet: str, entry: int, digest: str, now: datetime) -> SignedHead:
    """The head to be signed behind ``mark``.

    Raises:
        ConflictError: The log was written anew, or an older copy of the database was put back.
    """
    if entry < mark.entry:
        raise ConflictError(
            f"audit log: ends at entry {entry}, but entry {mark.entry} was signed: entries were taken out, or an older "
            "database was put back; compare it with a copy, run 'flagship audit verify'"
        )
    if entry == mark.entry and digest != mark.digest:
        raise ConflictError(
            f"audit log: entry {entry} has hash {digest[:12]}, but {mark.digest[:12]} was signed: the log was written "
            "anew; compare it with a copy, run 'flagship audit verify'"
        )
    return SignedHead(
        fleet=fleet,
        id=entry,
        hash=digest,
        former_id=mark.entry,
        former_hash=mark.digest,
        at=now.replace(microsecond=0),
    )
