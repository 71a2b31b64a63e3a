"""Back to what devices ran before: one new rollout for each version that they came from.

A device can go back to a release that is published and whose security counter is not below that of the release it took:
the counter rose on the device when it committed, and only offline keys lower it.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import ConflictError, NotFoundError, OperationError, UsageError
from orchestrator.model.plan import Members, RolloutSpec, StageSpec
from orchestrator.model.rollout import Rollout
from orchestrator.rollouts import operations
from orchestrator.rollouts.creating import create, start
from orchestrator.storage import events, parts, releases, rollouts
from orchestrator.storage.database import Database
from orchestrator.storage.releases import PUBLISHED
from protocol.clock import Clock

log = structlog.get_logger()
_Named = Mapping[str, list[str]]


@dataclass(slots=True)
class Reverted:
    """What a revert came to.

    Attributes:
        rollouts: The new ones, by the release that they bring back.
        stay: Devices that cannot go back, by why.
    """

    rollouts: dict[str, str] = field(default_factory=dict)
    stay: dict[str, list[str]] = field(default_factory=dict)


async def revert(
    db: Database,
    clock: Clock,
    rollout_id: str,
    *,
    unhealthy: bool = False,
    begin: bool = False,
    actor: str = "operator",
) -> Reverted:
    """Make the rollouts back, and start them where asked to.

    Args:
        unhealthy: Only devices that were left inconsistent, or took too long or fell silent while being changed.

    Raises:
        NotFoundError: There is no such rollout.
        ConflictError: It never began, or no device of it can go back; who and why is said.
    """
    async with db.read() as conn:
        rollout = await operations.get(conn, rollout_id)
        if rollout.started_at is None:
            raise ConflictError(f"rollout {rollout_id}: is {rollout.state} and never began; there is nothing to revert")
        found = await _ways_back(conn, rollout, unhealthy=unhealthy)
    back = {f"{rollout.release.partition('/')[0]}/{version}": ids for version, ids in sorted(found.go.items())}
    if back:
        await _log_order(db, clock, rollout, back, found.stay, actor)
    made = Reverted(stay=found.stay)
    for release, devices in back.items():
        try:
            new = await create(db, clock, _plan(rollout, release, unhealthy=unhealthy), actor=actor)
        except ConflictError as error:
            made.stay.setdefault(str(error), []).extend(devices)
            continue
        made.rollouts[release] = new.id
        if begin:
            await start(db, clock, new.id, actor=actor)
    if not made.rollouts:
        why = "; ".join(f"{len(ids)} devices ({', '.join(ids[:3])}): {text}" for text, ids in made.stay.items())
        raise ConflictError(f"rollout {rollout_id}: no device can go back: {why or 'none was updated by it'}")
    async with db.begin() as conn:
        text = ", ".join(f"{name} brings back {release}" for release, name in made.rollouts.items())
        stays = sum(map(len, made.stay.values()))
        text += f"; {stays} devices cannot go back" if stays else ""
        await events.add(conn, "rollout_reverted", text, clock.now(), actor=actor, rollout=rollout_id)
    return made


async def _log_order(
    db: Database,
    clock: Clock,
    rollout: Rollout,
    back: Mapping[str, list[str]],
    stay: Mapping[str, list[str]],
    actor: str,
) -> None:
    counts = {release: len(ids) for release, ids in back.items()}
    stays = sum(map(len, stay.values()))
    text = "revert: " + ", ".join(f"{n} devices to {release}" for release, n in counts.items())
    async with db.begin() as conn:
        given = operations.Order(verb="revert", actor=actor)
        figures = {"back": counts, "stay": stays}
        await operations.log_order(conn, rollout.id, given, clock.now(), text, rollout.state, **figures)


async def revert_after_halt(db: Database, clock: Clock, rollout_id: str, actor: str) -> bool:
    """What ``on_halt: revert`` asks for; done once, and what keeps it from being done stands in the events.

    Returns:
        False where it is worth another try.
    """
    try:
        await revert(db, clock, rollout_id, begin=True, actor=actor)
    except (ConflictError, NotFoundError, UsageError) as error:
        async with db.begin() as conn:
            await events.add(conn, "rollout_not_reverted", str(error), clock.now(), actor=actor, rollout=rollout_id)
    except OperationError as error:
        log.error("not reverted yet", rollout_id=rollout_id, why=str(error))
        return False
    async with db.begin() as conn:
        await rollouts.save(conn, rollout_id, is_news=False, wants_revert=False)
    return True


@dataclass(slots=True)
class _Ways:
    go: dict[str, list[str]]
    stay: dict[str, list[str]]


async def _ways_back(conn: AsyncConnection, rollout: Rollout, *, unhealthy: bool) -> _Ways:
    """Devices by the version that they came from, and those that have no way back."""
    came_from = await parts.came_from(conn, rollout.id, unhealthy=unhealthy)
    product = rollout.release.partition("/")[0]
    taken = await releases.get(conn, rollout.release)
    go: defaultdict[str, list[str]] = defaultdict(list)
    stay: defaultdict[str, list[str]] = defaultdict(list)
    for version, devices in came_from.items():
        former = await releases.get(conn, f"{product}/{version}") if version else None
        if not version:
            stay["never said what it ran before"] += devices
        elif former is None or former.state != PUBLISHED:
            stay[f"{product}/{version} is {former.state if former else 'not known here'}"] += devices
        elif taken is not None and former.component != taken.component:
            stay[f"{product}/{version} is of component {former.component}"] += devices
        elif taken is not None and former.counter < taken.counter:
            stay[f"security counter {former.counter} of {product}/{version} is below {taken.counter}"] += devices
        else:
            go[version] += devices
    return _Ways(dict(go), dict(stay))


def _plan(rollout: Rollout, release: str, *, unhealthy: bool) -> RolloutSpec:
    """Everybody at once, under the pace, limits, weight and policy of the rollout that is taken back."""
    spec = rollout.spec
    return RolloutSpec(
        release=release,
        members=Members(reverts=rollout.id, unhealthy=unhealthy),
        stages=[StageSpec(name="back", percent=100)],
        success_ratio=spec.success_ratio,
        halt_ratio=spec.halt_ratio,
        halt_min_sample=spec.halt_min_sample,
        pace_per_minute=spec.pace_per_minute,
        site_bytes_per_hour=spec.site_bytes_per_hour,
        max_unavailable=spec.max_unavailable,
        timeouts=spec.timeouts,
        weight=spec.weight,
        emergency=spec.emergency,
        policy=spec.policy,
    )
