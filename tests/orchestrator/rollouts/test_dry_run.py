"""A plan tried out on a real database: everything that it comes to, and nothing that it changes."""

import json
from typing import Any

import pytest

from orchestrator.errors import ConflictError, UsageError
from orchestrator.model.device import DeviceState
from orchestrator.model.plan import Members, RolloutSpec, StageSpec
from orchestrator.rollouts import dry_run
from orchestrator.rollouts.dry_run import Report, try_out
from orchestrator.storage import releases
from protocol.states import State
from protocol.versions import compare
from tests.orchestrator.rollouts.yard import LOW_BATTERY, NOW, RELEASE, Yard, plan

HALVES = (StageSpec(name="half", percent=50), StageSpec(name="all", percent=100))


async def report(yard: Yard, spec: RolloutSpec) -> Report:
    """What comes of it."""
    return await try_out(yard.db, yard.clock, spec, compare)


async def test_members_exclusions_and_bytes(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """By stage, by reason with examples, by site with the rest in one; nothing is written."""
    monkeypatch.setattr(dry_run, "LARGEST_SITES", 1)
    await yard.add_devices(["a1", "a2", "a3"], labels={"site": "lab"})
    await yard.add_devices(["b1"], labels={"site": "field"}, online=True)
    await yard.add_devices(["c1"])
    await yard.add_devices(["x1"], hardware="rev-z")
    await yard.set_device_state("a3", DeviceState.REVOKED)
    found = await report(yard, plan(*HALVES))
    assert (found.release, found.examined, found.members) == (RELEASE, 6, 4)
    assert [(stage.name, stage.members) for stage in found.stages] == [("half", 2), ("all", 2)]
    assert {left.reason: (left.devices, left.examples) for left in found.excluded} == {
        "closed": (1, {"a3": "is revoked"}),
        "other_hardware": (1, {"x1": "is rev-z, the release is for rev-a"}),
    }
    by_site = found.bytes_by_site
    assert [(site.site, site.members, site.size_bytes) for site in by_site.sites] == [("lab", 2, 2)]
    assert (by_site.total_bytes, by_site.other_sites, by_site.other_bytes) == (4, 2, 2)
    assert (found.readiness.online, found.readiness.silent, found.readiness.waiting) == (1, 0, {})
    assert found.duration.total_s is None
    assert found.past == ()
    async with yard.db.read() as conn:
        assert list(await conn.exec_driver_sql("SELECT * FROM rollouts")) == []


async def test_what_went_before_is_told(yard: Yard) -> None:
    """Time from offer to success, what keeps members waiting, and which rules would have halted it."""
    await yard.add_release(name="gateway/1.2.0")
    await yard.add_devices(["d1", "d2", "d3"])
    first = await yard.run()
    await yard.look()
    for device in ("d1", "d2"):
        await yard.ready(first, device)
    await yard.ready(first, "d3", LOW_BATTERY)
    await yard.look()
    yard.clock.advance(600)
    await yard.report(first, "d1", State.SUCCEEDED)
    await yard.report(first, "d2", State.FAILED)
    await yard.look()
    async with yard.db.begin() as conn:
        await conn.exec_driver_sql("UPDATE rollouts SET ended_at = '2026-11-24T13:00:00.000000Z'")
    next_one = RolloutSpec(release="gateway/1.2.0", stages=list(HALVES), halt_count=1)
    found = await report(yard, next_one)
    assert found.duration.update_s == 600
    assert found.duration.total_s == 1200
    assert found.readiness.waiting == {"power:battery_low": 1}
    (past,) = found.past
    assert (past.rollout, past.release) == (first, RELEASE)
    assert past.would_halt[-1] == "rollout: 1 failed, halts at 1"
    assert found.to_json()["past"][0]["rollout"] == first


@pytest.mark.parametrize(
    ("rules", "error", "says"),
    [
        ({"start_at": NOW.replace(year=2020)}, UsageError, "is past"),
        ({"members": Members(selector="site=mars")}, ConflictError, "plan: no member"),
    ],
)
async def test_what_cannot_work_is_refused(
    yard: Yard, rules: dict[str, Any], error: type[Exception], says: str
) -> None:
    """With the same sentences as when it is created."""
    await yard.add_devices(["d1", "d2"])
    with pytest.raises(error, match=says):
        await report(yard, plan(*HALVES, **rules))


async def test_an_image_above_the_budget_and_a_circle_are_refused(yard: Yard) -> None:
    """They need the releases that are here."""
    await yard.add_devices(["d1", "d2"])
    async with yard.db.begin() as conn:
        await conn.exec_driver_sql("UPDATE releases SET image_bytes = 5000")
    with pytest.raises(ConflictError, match="site_bytes_per_hour 4999"):
        await report(yard, plan(*HALVES, site_bytes_per_hour=4999))
    async with yard.db.begin() as conn:
        record = await releases.get(conn, RELEASE)
        assert record is not None
        text = record.info | {"requires": {"app": "1.1.0"}}
        await conn.exec_driver_sql("UPDATE releases SET info = ?", (json.dumps(text),))
    with pytest.raises(ConflictError, match="can never be installed"):
        await report(yard, plan(*HALVES))
