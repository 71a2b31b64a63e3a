"""How far is this broker? What ``status/sync`` on it means for what must be published again. Pure."""

from protocol.envelopes import decode
from protocol.errors import ProtocolError
from protocol.status_messages import Sync
from protocol.topics import RULES, Kind


def published_up_to(raw: bytes | None, database: str, last_serial: int) -> int:
    """The serial up to which this broker surely has everything; 0 means that all is published again.

    A marker that is absent, foreign, unreadable or ahead of the database (which then was restored) proves nothing.
    """
    if not raw or len(raw) > RULES[Kind.STATUS_SYNC].max_bytes:
        return 0
    try:
        sync = decode(raw, Sync)
    except ProtocolError:
        return 0
    if sync.database != database or not 0 <= sync.serial <= last_serial:
        return 0
    return sync.serial
