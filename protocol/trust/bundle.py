"""The ``trust/bundle`` message: several metadata files as one, so that a device never sees half of a set. Pure."""

import json
import zlib
from collections.abc import Mapping

from protocol.errors import ErrorCode, TrustError

MAX_BUNDLE_BYTES = 65_536
MAX_BUNDLE_UNPACKED_BYTES = 262_144


def pack_bundle(files: Mapping[str, bytes]) -> bytes:
    """The ``trust/bundle`` message: zlib(JSON {file name: text}).

    Raises:
        TrustError: E_OVERSIZE: the set does not fit; old releases must be withdrawn.
    """
    text = json.dumps({name: files[name].decode() for name in sorted(files)}, separators=(",", ":"))
    packed = zlib.compress(text.encode(), 9)
    if len(packed) > MAX_BUNDLE_BYTES or len(text) > MAX_BUNDLE_UNPACKED_BYTES:
        raise TrustError(
            ErrorCode.OVERSIZE,
            f"trust bundle: at most {MAX_BUNDLE_BYTES} B packed, found {len(packed)}; withdraw old releases",
        )
    return packed


def unpack_bundle(raw: bytes) -> dict[str, bytes]:
    """Read a bundle; what is in it is still unproven.

    Raises:
        TrustError: E_OVERSIZE (a zlib bomb too) or E_FORMAT.
    """
    if len(raw) > MAX_BUNDLE_BYTES:
        raise TrustError(ErrorCode.OVERSIZE, f"trust bundle: at most {MAX_BUNDLE_BYTES} B, found {len(raw)}")
    decoder = zlib.decompressobj()
    try:
        text = decoder.decompress(raw, MAX_BUNDLE_UNPACKED_BYTES + 1)
        if len(text) > MAX_BUNDLE_UNPACKED_BYTES:
            raise TrustError(ErrorCode.OVERSIZE, f"trust bundle: more than {MAX_BUNDLE_UNPACKED_BYTES} B unpacked")
        if not decoder.eof or decoder.unused_data:
            raise TrustError(ErrorCode.FORMAT, "trust bundle: cut short, or followed by something")
        files = json.loads(text)
    except (zlib.error, ValueError, RecursionError) as error:
        raise TrustError(ErrorCode.FORMAT, "trust bundle: not zlib of JSON") from error
    if not isinstance(files, dict) or not all(isinstance(v, str) for v in files.values()):
        raise TrustError(ErrorCode.FORMAT, "trust bundle: expected file names and texts")
    try:
        return {str(name): text.encode() for name, text in files.items()}
    except UnicodeEncodeError as error:
        raise TrustError(ErrorCode.FORMAT, "trust bundle: text is not Unicode") from error
