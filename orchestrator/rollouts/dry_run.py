"""A plan tried out: what would be done to whom, how long it would take, and what speaks against it. Nothing is written.

One snapshot in one thread: a million devices take some ten seconds, in which serve goes on.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import lru_cache
from json import loads
from random import Random
from statistics import median
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.plan import RolloutSpec
from orchestrator.rollouts import placing
from orchestrator.rollouts.forecast import Duration, expect_duration, find_warnings
from orchestrator.rollouts.hindsight import would_halt
from orchestrator.rollouts.members import SENTENCES, Compare, Exclusions
from orchestrator.rollouts.plans import Plan
from orchestrator.storage import parts, releases
from orchestrator.storage.database import Database
from orchestrator.storage.parts import PastRollout
from protocol.clock import Clock

LARGEST_SITES = 10
MAX_REASONS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSize:
    """Members of one stage."""

    name: str
    members: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """Devices that take no part for one reason.

    Attributes:
        examples: Some of them, each with its own sentence.
    """

    reason: str
    sentence: str
    devices: int
    examples: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadinessNow:
    """What members said last.

    Attributes:
        waiting: Members by ``gate:code`` of what keeps them waiting, the most frequent first.
    """

    online: int
    silent: int
    waiting: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteBytes:
    """What one site fetches at most: image bytes of each member; "" is devices without a site."""

    site: str
    members: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bytes:
    """Image bytes by site, the largest first; what chunks in common and deltas save is not taken off."""

    image_bytes: int
    total_bytes: int
    sites: tuple[SiteBytes, ...]
    other_sites: int
    other_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hindsight:
    """A past rollout of the product under this plan's rules; ``would_halt`` is empty where it goes through."""

    rollout: str
    release: str
    would_halt: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that a plan comes to."""

    release: str
    examined: int
    members: int
    stages: tuple[StageSize, ...]
    excluded: tuple[Left, ...]
    readiness: ReadinessNow
    bytes_by_site: Bytes
    duration: Duration
    past: tuple[Hindsight, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As it goes over HTTP."""
        return asdict(self)


async def try_out(
    db: Database, clock: Clock, spec: RolloutSpec, compare: Compare, random: Random | None = None
) -> Report:
    """Carry a plan out on paper.

    Raises:
        NotFoundError: The release, a group or a listed device does not exist.
        UsageError: It was to start or end in the past.
        ConflictError: It cannot work, or a stage is empty, or members are left over; the sentence says which.
    """
    now = clock.now()

    async def work(conn: AsyncConnection) -> Report:
        facts = await placing.load_facts(conn, spec, compare)
        await placing.check_possible(conn, spec, facts, now)
        return await _report(conn, await placing.plan_members(conn, spec, facts, random=random), now)

    return await db.look(work)


async def _report(conn: AsyncConnection, plan: Plan, now: datetime) -> Report:
    spec, sizes, sites = plan.spec, plan.sizes(), plan.by_site()
    product = spec.release.partition("/")[0]
    image_bytes = await releases.image_bytes(conn, spec.release)
    past = await parts.past_rollouts(conn, product)
    times = await parts.update_times_s(conn, [rollout.id for rollout in past])
    duration = expect_duration(
        spec,
        sizes,
        largest_site=max(sites.values()),
        image_bytes=image_bytes,
        update_s=median(times) if times else None,
    )
    return Report(
        release=spec.release,
        examined=plan.examined,
        members=len(plan),
        stages=tuple(StageSize(name=s.name, members=n) for s, n in zip(spec.stages, sizes, strict=True)),
        excluded=_excluded(plan.exclusions),
        readiness=ReadinessNow(online=plan.online, silent=plan.silent, waiting=await _waiting(conn, plan)),
        bytes_by_site=_bytes(image_bytes, sites),
        duration=duration,
        past=_judge(spec, past),
        warnings=tuple(find_warnings(spec, sizes, duration, silent=plan.silent, now=now)),
    )


def _excluded(found: Exclusions) -> tuple[Left, ...]:
    return tuple(
        Left(reason=reason, sentence=SENTENCES[reason], devices=count, examples=dict(found.examples[reason]))
        for reason, count in found.counts.most_common()
    )


async def _waiting(conn: AsyncConnection, plan: Plan) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for device, text in await parts.newest_reasons(conn):
        if plan.has(device):
            counts.update(_reasons(text))
    return dict(counts.most_common(MAX_REASONS))


@lru_cache(maxsize=4096)
def _reasons(text: str) -> frozenset[str]:
    return frozenset(f"{reason.get('gate')}:{reason.get('code')}" for reason in loads(text))


def _bytes(image_bytes: int, sites: dict[str, int]) -> Bytes:
    largest = list(sites.items())[:LARGEST_SITES]
    total, shown = sum(sites.values()), sum(members for _, members in largest)
    return Bytes(
        image_bytes=image_bytes,
        total_bytes=total * image_bytes,
        sites=tuple(SiteBytes(site=site, members=n, size_bytes=n * image_bytes) for site, n in largest),
        other_sites=len(sites) - len(largest),
        other_bytes=(total - shown) * image_bytes,
    )


def _judge(spec: RolloutSpec, past: Sequence[PastRollout]) -> tuple[Hindsight, ...]:
    return tuple(
        Hindsight(
            rollout=found.id, release=found.release, would_halt=tuple(would_halt(spec, found.stages, found.counts))
        )
        for found in past
    )
