"""Members chosen from the fleet as it stands, and put into the database in batches that hold nobody up.

plan_members: one snapshot, nothing written. place: many short transactions; what a crash left is taken away first, so
that it may be called again. The rollout moves on afterwards, in a transaction of the caller's, who also notes the
sizes of the stages. newcomers: devices that came to fit a rollout that runs.
"""

import json
from collections.abc import Collection, Iterator
from datetime import datetime
from itertools import islice
from random import Random
from secrets import randbits

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.model.plan import RolloutSpec
from orchestrator.model.rollout import BEGUN, Rollout, RolloutState
from orchestrator.rollouts.dependencies import check_needs
from orchestrator.rollouts.impossible import check_plan
from orchestrator.rollouts.members import Compare, Facts, Groups, Judge, Place, some
from orchestrator.rollouts.plans import Plan, Roster, ScopeReader
from orchestrator.storage import devices, groups, parts, placements, releases, rollouts
from orchestrator.storage.database import Database
from orchestrator.storage.releases import PUBLISHED
from protocol.clock import rfc3339
from protocol.manifest import ReleaseInfo

BATCH = 1000
"""Places in one transaction: some tens of milliseconds, in which ingest waits."""
PLACEABLE = frozenset({RolloutState.DRAFT, RolloutState.SCHEDULED})


async def load_facts(conn: AsyncConnection, spec: RolloutSpec, compare: Compare, rollout: str = "") -> Facts:
    """What is held against devices for this plan, over the whole fleet.

    Args:
        conn: A snapshot.
        spec: The plan.
        compare: Order of versions, ``protocol.versions.compare``.
        rollout: The rollout itself, where it exists: its own parts are none elsewhere.

    Raises:
        NotFoundError: The release, a group or a listed device does not exist.
        ConflictError: The release is not published.
    """
    info = await release_info(conn, spec.release)
    await _check_listed(conn, spec)
    return Facts(
        info=info,
        compare=compare,
        published=await _published(conn, info.product),
        groups=await _groups(conn, spec),
        quarantined=await parts.quarantined(conn, spec.release),
        elsewhere=await parts.open_elsewhere(conn, spec.release, but=rollout),
        reverted=await _reverted(conn, spec, info.version),
    )


async def _reverted(conn: AsyncConnection, spec: RolloutSpec, version: str) -> frozenset[str] | None:
    if spec.members.reverts is None:
        return None
    if await rollouts.get(conn, spec.members.reverts) is None:
        raise NotFoundError(f"members.reverts: there is no rollout {spec.members.reverts}")
    found = await parts.came_from(conn, spec.members.reverts, unhealthy=spec.members.unhealthy)
    return frozenset(found.get(version, ()))


async def check_possible(conn: AsyncConnection, spec: RolloutSpec, facts: Facts, now: datetime) -> None:
    """Refuse a plan that cannot work, and a release that needs itself.

    Raises:
        UsageError: It was to start or end in the past.
        ConflictError: No device could ever come to the end of it.
    """
    windows = spec.policy.windows or ()
    image_bytes = await releases.image_bytes(conn, spec.release)
    check_plan(spec, image_bytes=image_bytes, now=now, windows=windows)
    check_needs(facts.info, facts.published, facts.compare)


async def plan_members(
    conn: AsyncConnection, spec: RolloutSpec, facts: Facts, *, what: str = "plan", random: Random | None = None
) -> Plan:
    """Choose members and give them their places; looks at the whole fleet, so call it through ``Database.look``.

    Raises:
        ConflictError: No member, an empty stage, or members that no stage covers.
    """
    roster = Roster(spec, Judge(spec.members, facts).exclude, facts.groups)
    async for page in devices.for_planning(conn):
        roster.add(page)
    return roster.place(what, random or Random(randbits(128)))


async def place(db: Database, rollout_id: str, plan: Plan) -> list[int]:
    """Give every member its row, and count them; returns the members of each stage.

    Raises:
        NotFoundError: There is no such rollout.
        ConflictError: It has begun, or was aborted meanwhile.
    """
    while await _clear_some(db, rollout_id):
        pass
    rows = _rows(rollout_id, plan)
    while batch := list(islice(rows, BATCH)):
        await _insert(db, rollout_id, batch)
    return plan.sizes()


async def newcomers(conn: AsyncConnection, rollout: Rollout, ids: Collection[str], compare: Compare) -> list[Place]:
    """Places in the last stage that has begun, or the first, for those devices that fit the plan and have none yet.

    For devices that enrolled or changed after the start. Their place is by chance, and so among those still waiting.
    """
    spec, fresh = rollout.spec, set(ids) - await parts.placed(conn, rollout.id, ids)
    begun = [stage.position for stage in await rollouts.load_stages(conn, rollout.id) if stage.state in BEGUN]
    if not fresh:
        return []
    release = await releases.get(conn, spec.release)
    if release is None or release.state != PUBLISHED:
        return []
    facts = await _facts_about(conn, spec, ReleaseInfo.model_validate(release.info), rollout.id, fresh, compare)
    judge, random = Judge(spec.members, facts), Random(randbits(128))
    scopes = ScopeReader(spec.max_unavailable, facts.groups)
    return [
        Place(device.id, max(begun, default=0), random.random(), device.site, scopes.read(device))
        for device in await devices.candidates(conn, fresh)
        if judge.exclude(device) is None
    ]


async def why_not(conn: AsyncConnection, rollout: Rollout, device: str, compare: Compare) -> str:
    """Why a device has no part in a rollout, in words that follow "it is no member: "."""
    spec = rollout.spec
    release = await releases.get(conn, spec.release)
    if release is None:
        return f"the release {spec.release} is not known here"
    info = ReleaseInfo.model_validate(release.info)
    facts = await _facts_about(conn, spec, info, rollout.id, {device}, compare)
    judge = Judge(spec.members, facts)
    for found in await devices.candidates(conn, {device}):
        if (excluded := judge.exclude(found)) is not None:
            return f"it {excluded.sentence}"
    if rollout.started_at is None:
        return "the rollout has not started; by what is known now it will take part"
    return f"it fits now, and members were fixed when the rollout started at {rfc3339(rollout.started_at)}"


async def _facts_about(
    conn: AsyncConnection, spec: RolloutSpec, info: ReleaseInfo, rollout: str, ids: set[str], compare: Compare
) -> Facts:
    """What is held against some devices."""
    return Facts(
        info=info,
        compare=compare,
        published=await _published(conn, info.product),
        groups=await _groups(conn, spec, ids),
        quarantined=await parts.quarantined(conn, spec.release, ids),
        elsewhere=await parts.open_elsewhere(conn, spec.release, rollout, ids),
        reverted=await _reverted(conn, spec, info.version),
    )


async def release_info(conn: AsyncConnection, release_id: str) -> ReleaseInfo:
    """What a published release is for.

    Raises:
        NotFoundError: It does not exist.
        ConflictError: It is not published.
    """
    release = await releases.get(conn, release_id)
    if release is None:
        raise NotFoundError(f"release {release_id}: there is none; see 'flagship release list'")
    if release.state != PUBLISHED:
        raise ConflictError(
            f"release {release_id}: is {release.state}; publish it with 'flagship release publish' first"
        )
    return ReleaseInfo.model_validate(release.info)


async def _clear_some(db: Database, rollout_id: str) -> int:
    async def work(conn: AsyncConnection) -> int:
        await _check_placeable(conn, rollout_id)
        return await parts.remove_some(conn, rollout_id, BATCH)

    return await db.write(work)


async def _insert(db: Database, rollout_id: str, batch: list[placements.Row]) -> None:
    async def work(conn: AsyncConnection) -> None:
        await _check_placeable(conn, rollout_id)
        await placements.insert_rows(conn, batch)

    await db.write(work)


async def _check_placeable(conn: AsyncConnection, rollout_id: str) -> None:
    rollout = await rollouts.get(conn, rollout_id)
    if rollout is None:
        raise NotFoundError(f"rollout {rollout_id}: there is none; see 'flagship rollout list'")
    if rollout.started_at is not None or rollout.state not in PLACEABLE:
        raise ConflictError(f"rollout {rollout_id}: is {rollout.state}; members are placed before it starts")


def _rows(rollout: str, plan: Plan) -> Iterator[placements.Row]:
    scopes = [json.dumps(found) for found in plan.scopes]
    columns = zip(plan.ids, plan.stage_of, plan.order_of, plan.site_of, plan.scopes_of, strict=True)
    for device, stage, order, site, scope in columns:
        yield placements.Row(rollout, device, stage, order, plan.sites[site], scopes[scope])


async def _published(conn: AsyncConnection, product: str) -> tuple[ReleaseInfo, ...]:
    return tuple(ReleaseInfo.model_validate(info) for info in await releases.published_infos(conn, product))


async def _groups(conn: AsyncConnection, spec: RolloutSpec, ids: Collection[str] | None = None) -> Groups:
    """Groups that a plan names, reduced to these devices where they are given."""
    others = [stage.group for stage in spec.stages] + [limit.group for limit in spec.max_unavailable]
    names = sorted({name for name in (spec.members.group, *others) if name})
    known = await groups.existing(conn, names)
    if unknown := [name for name in names if name not in known]:
        word, verb = ("group", "is none") if len(unknown) == 1 else ("groups", "are none")
        raise NotFoundError(f"{word} {some(unknown)}: there {verb}; see 'flagship group list'")
    if ids is not None:
        return await groups.members_among(conn, names, ids)
    return {name: frozenset(await groups.members(conn, name)) for name in names}


async def _check_listed(conn: AsyncConnection, spec: RolloutSpec) -> None:
    places = [("members.devices", spec.members.devices)]
    places += [(f"stage {stage.name}", stage.devices) for stage in spec.stages]
    for where, ids in places:
        if ids and (unknown := await devices.missing(conn, ids)):
            word, verb = ("device", "is none") if len(unknown) == 1 else ("devices", "are none")
            raise NotFoundError(f"{where}: {word} {some(unknown)}: there {verb}; see 'flagship device list'")
