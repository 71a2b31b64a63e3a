"""Who takes part, and why not who does not."""

from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.model.plan import Members
from orchestrator.rollouts.members import EXAMPLES, Exclusion, Exclusions, Judge
from tests.orchestrator.rollouts.fleets import candidate, facts, release

SINCE = datetime(2026, 11, 1, 8, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("changes", "reason", "says"),
    [
        pytest.param({}, None, "", id="fits"),
        pytest.param({"hardware": "rev-b"}, None, "", id="other hardware that fits"),
        pytest.param({"components": {}}, None, "", id="version unknown"),
        pytest.param({"components": {"app": "9.0"}}, None, "", id="newer: the device judges"),
        pytest.param({"hardware": "rev-c"}, Exclusion.OTHER_HARDWARE, "rev-c, the release is for rev-a", id="hardware"),
        pytest.param({"product": "camera"}, Exclusion.OTHER_PRODUCT, "is a camera", id="product"),
        pytest.param({"components": {"app": "1.1.0"}}, Exclusion.CURRENT, "runs app 1.1.0 already", id="current"),
        pytest.param({"state": "revoked"}, Exclusion.CLOSED, "is revoked", id="revoked"),
        pytest.param({"state": "retired"}, Exclusion.CLOSED, "is retired", id="retired"),
        pytest.param({"duplicate": 1}, Exclusion.DUPLICATE, "two live devices", id="duplicate"),
    ],
)
def test_members_fit_the_release(changes: dict[str, Any], reason: Exclusion | None, says: str) -> None:
    """Only devices that can and should install it take part; the sentence says what was found."""
    excluded = Judge(Members(), facts()).exclude(candidate(**changes))
    assert (excluded and excluded.reason) == reason
    assert says in (excluded.sentence if excluded else "")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (Members(group="some"), Exclusion.NOT_IN_GROUP),
        (Members(selector="site=lab"), Exclusion.NOT_SELECTED),
        (Members(devices=("d1", "d3")), Exclusion.NOT_LISTED),
    ],
)
def test_what_is_named_must_hold(members: Members, reason: Exclusion) -> None:
    """Group, selector and list each leave out; together all must hold."""
    known = facts(groups={"some": frozenset({"d1"})})
    inside, outside = candidate("d1", labels={"site": "lab"}), candidate("d2", labels={"site": "field"})
    judge = Judge(members, known)
    assert judge.exclude(inside) is None
    excluded = judge.exclude(outside)
    assert excluded is not None
    assert excluded.reason is reason
    whole = Members(group="some", selector="site=lab", devices=("d1", "d2"))
    assert Judge(whole, known).exclude(inside) is None


@pytest.mark.parametrize(
    ("runs", "reason", "says"),
    [
        ({"app": "1.0.0", "os": "2.0"}, None, ""),
        ({"app": "1.0.0", "os": "2.1"}, Exclusion.REQUIRES, "needs os 2.0 first, runs 2.1"),
        ({"app": "1.0.0"}, Exclusion.REQUIRES, "needs os 2.0 first, runs none"),
        ({"app": "1.0.0", "os": "2.0", "mcu": "7"}, Exclusion.CONFLICTS, "runs mcu 7"),
    ],
)
def test_other_components_must_go_with_it(runs: dict[str, str], reason: Exclusion | None, says: str) -> None:
    """What the release requires is there, what it conflicts with is not."""
    info = release(requires={"os": "2.0"}, conflicts={"mcu": "7"})
    excluded = Judge(Members(), facts(info)).exclude(candidate(components=runs))
    assert (excluded and excluded.reason) == reason
    assert says in (excluded.sentence if excluded else "")


@pytest.mark.parametrize(
    ("running", "step", "passes"),
    [
        pytest.param("1.0.0", {}, False, id="below it"),
        pytest.param("1.0.5", {}, True, id="runs it"),
        pytest.param("1.0.10", {}, True, id="above it: 10 follows 5"),
        pytest.param("1.0.0", {"hardware": ["rev-z"]}, True, id="not for this hardware"),
        pytest.param("1.0.0", {"component": "os"}, True, id="another component"),
        pytest.param("1.0.0", {"version": "1.2.0"}, True, id="behind the target"),
        pytest.param("1.0.0", {"must_pass_through": False}, True, id="may be skipped"),
    ],
)
def test_some_releases_cannot_be_skipped(running: str, step: dict[str, Any], passes: bool) -> None:
    """A device below one that must be passed through waits for that one."""
    values: dict[str, Any] = {"version": "1.0.5", "must_pass_through": True} | step
    judge = Judge(Members(), facts(published=(release(**values), release())))
    excluded = judge.exclude(candidate(components={"app": running}))
    if passes:
        assert excluded is None
    else:
        assert excluded is not None
        assert excluded.reason is Exclusion.SKIPS
        assert "must pass through gateway/1.0.5 first" in excluded.sentence


def test_what_went_before_keeps_a_device_out() -> None:
    """It rolled this release back, or is at it in another rollout; alike devices are not touched by that."""
    judge = Judge(Members(), facts(quarantined={"d1": SINCE}, elsewhere={"d2": "r-7"}))
    first, second = judge.exclude(candidate("d1")), judge.exclude(candidate("d2"))
    assert first == (Exclusion.QUARANTINED, "is quarantined for this release since 2026-11-01 08:30 UTC")
    assert second == (Exclusion.ELSEWHERE, "has an open part in rollout r-7 of the same release")
    assert judge.exclude(candidate("d3")) is None


def test_exclusions_take_no_more_room_for_more_devices() -> None:
    """All are counted, few are named."""
    found, judge = Exclusions(), Judge(Members(), facts())
    for number in range(1000):
        excluded = judge.exclude(candidate(f"d{number}", state="revoked"))
        assert excluded is not None
        found.add(f"d{number}", excluded)
    assert found.counts == {Exclusion.CLOSED: 1000}
    assert found.examples == {Exclusion.CLOSED: [(f"d{number}", "is revoked") for number in range(EXAMPLES)]}
    assert str(found) == "1000: revoked or retired"
