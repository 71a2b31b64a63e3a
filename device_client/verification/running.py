"""Does the running version work? A program of the owner's says so with its exit code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_client.programs import run_program


@dataclass(frozen=True, slots=True)
class HealthResult:
    """What the check said.

    Attributes:
        ok: Whether it ended with 0 in time.
        detail: Why not, in one clause.
        log: The end of what it wrote, at most 10 KiB, without control characters.
    """

    ok: bool
    detail: str
    log: str


async def run_health(
    argv: Sequence[str], timeout_s: float, env: Mapping[str, str], cwd: Path | None = None
) -> HealthResult:
    """Run a health check; as ``run_program``. No ``argv`` means that nothing is checked."""
    if not argv:
        return HealthResult(True, "no check is configured", "")
    ended = await run_program(argv, timeout_s, env, cwd, what="health check")
    return HealthResult(ended.ok, ended.detail, ended.log)
