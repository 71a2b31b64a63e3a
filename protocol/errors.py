"""Errors that both sides share, and the codes they have on the wire.

    FlagshipError              root of every fact about the world that this project reports
    └── ProtocolError          input from outside that is refused; carries an ErrorCode
        ├── EnvelopeError      a signed message fails size, form, type, signature or scope
        ├── TrustError         TUF metadata or the order made from it is refused
        └── ContentError       a chunk, a sealed manifest or a file is not what was signed

A caller's bug is ValueError or RuntimeError, never one of these.
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """One word per way in which input is refused (research: one code per attack type)."""

    FORMAT = "E_FORMAT"
    TYPE = "E_TYPE"
    OVERSIZE = "E_OVERSIZE"
    SIGNATURE = "E_SIGNATURE"
    SCOPE = "E_SCOPE"
    REPLAY = "E_REPLAY"
    EQUIVOCATION = "E_EQUIVOCATION"
    EXPIRED = "E_EXPIRED"
    CLOCK = "E_CLOCK"

    METADATA = "E_METADATA"
    ROLLBACK_METADATA = "E_ROLLBACK_METADATA"
    FREEZE = "E_FREEZE"
    MIX = "E_MIX"
    WITHHELD = "E_WITHHELD"

    NOT_RELEASED = "E_NOT_RELEASED"
    MISMATCH = "E_MISMATCH"
    HARDWARE = "E_HARDWARE"
    SOFTWARE = "E_SOFTWARE"
    ROLLBACK_RELEASE = "E_ROLLBACK_RELEASE"
    KEY = "E_KEY"
    UNSAFE = "E_UNSAFE"

    CHUNK = "E_CHUNK"
    SLOW = "E_SLOW"
    SPACE = "E_SPACE"

    EXEC_SIGNATURE = "E_EXEC_SIGNATURE"
    EXEC_UNLISTED = "E_EXEC_UNLISTED"
    POSTINSTALL = "E_POSTINSTALL"
    INSTALL = "E_INSTALL"
    HEALTH = "E_HEALTH"
    TIMEOUT = "E_TIMEOUT"


class FlagshipError(Exception):
    """Something outside this program is not as it must be."""


class ProtocolError(FlagshipError):
    """Input from outside was refused.

    Attributes:
        code: The word this refusal has on the wire.
        detail: What was expected and what was found; no key, token or payload.
    """

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class EnvelopeError(ProtocolError):
    """A signed message was refused."""


class TrustError(ProtocolError):
    """TUF metadata, or an order made from it, was refused."""


class ContentError(ProtocolError):
    """A chunk, a sealed manifest or a file is not what was signed."""
