"""Writing files of a release without ever following a link."""

import os
from pathlib import Path

from device_client.durable import write_all
from protocol.errors import ContentError, ErrorCode

BLOCK_BYTES = 2**20


def copy_slice(source: int, offset: int, length: int, target: Path, mode: int) -> None:
    """Write ``length`` bytes of an open file as a new file.

    Args:
        source: A file descriptor; its position is not used.
        offset: Where the slice begins.
        length: Bytes.
        target: Must not exist; a link in its place is an error, not a way elsewhere.
        mode: Permission bits, whatever the umask.

    Raises:
        ContentError: E_INSTALL: the source ends before the slice does.
        OSError: It cannot be written.
    """
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        end = offset + length
        while offset < end:
            block = os.pread(source, min(BLOCK_BYTES, end - offset), offset)
            if not block:
                raise ContentError(ErrorCode.INSTALL, f"{target.name}: the stream ends {end - offset} B too early")
            write_all(descriptor, block)
            offset += len(block)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
