"""Reading what the kernel shows in /proc and /sys: short texts that may be missing on another machine."""

from pathlib import Path

MAX_BYTES = 16_384


def kernel_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """The text of a file without the white space around it; empty where it is missing or cannot be read.

    Args:
        max_bytes: What stands behind them is not read.
    """
    try:
        with path.open("rb") as file:
            return file.read(max_bytes).decode().strip()
    except (OSError, UnicodeDecodeError):
        return ""
