"""Which boot of this machine it is."""

from pathlib import Path


def boot_id() -> str:
    """The kernel's id of this boot; changes with every reboot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
