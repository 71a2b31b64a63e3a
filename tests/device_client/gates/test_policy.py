"""The strictest of several policies: whatever is merged, no demand becomes laxer."""

from hypothesis import given
from hypothesis import strategies as st

from device_client.gates.policy import WindowSet, asks_for_less, strictest, window_sets
from protocol.manifest import Policy
from protocol.windows import DAYS, PolicyWindow

ALWAYS = (PolicyWindow(days=DAYS, start="00:00", minutes=1440),)
NEVER_YET = (PolicyWindow(days=("sun",), start="03:00", minutes=1),)

POLICIES = st.builds(
    Policy,
    min_battery_percent=st.none() | st.integers(0, 100),
    require_approval=st.none() | st.booleans(),
    allow_in_use=st.none() | st.booleans(),
    require_way_back=st.none() | st.booleans(),
    min_interval_s=st.none() | st.integers(0, 10_000),
    windows=st.sampled_from([None, ALWAYS, NEVER_YET]),
)


def _is_at_least(one: Policy, other: Policy) -> bool:
    """Whether ``one`` demands everything that ``other`` demands."""
    return (
        (one.min_battery_percent or 0) >= (other.min_battery_percent or 0)
        and (one.min_interval_s or 0) >= (other.min_interval_s or 0)
        and bool(one.require_approval) >= bool(other.require_approval)
        and bool(one.require_way_back) >= bool(other.require_way_back)
        and not (other.allow_in_use is False and one.allow_in_use is not False)
    )


@given(st.lists(POLICIES, min_size=1, max_size=4))
def test_nothing_becomes_laxer(policies: list[Policy]) -> None:
    """The strictest demands at least what each of them demands, in any order, and no more than all of them."""
    merged = strictest(*policies)
    assert all(_is_at_least(merged, policy) for policy in policies)
    assert merged == strictest(*reversed(policies))
    assert merged == strictest(merged, *policies)
    for name in set(Policy.model_fields) - {"windows"}:
        assert getattr(merged, name) in [getattr(policy, name) for policy in policies]


@given(POLICIES, POLICIES)
def test_no_windows_are_lost_or_laxer(manifest: Policy, asked: Policy) -> None:
    """Every set that is named is waited for, each by itself; naming wider ones asks for nothing less."""
    sets = window_sets(release=manifest, rollout=asked)
    assert [found.windows for found in sets] == [p.windows for p in (manifest, asked) if p.windows]
    assert strictest(manifest, asked).windows is None, "two sets do not make one"
    assert "windows" not in asks_for_less(asked, manifest)
    without = [policy.model_copy(update={"windows": None}) for policy in (asked, manifest)]
    assert asks_for_less(asked, manifest) == asks_for_less(*without)


def test_a_set_says_whose_it_is() -> None:
    """A person sees who must change the windows."""
    assert window_sets(release=Policy(), rollout=Policy(windows=ALWAYS)) == (WindowSet("rollout", ALWAYS),)


def test_no_policy_has_no_demand() -> None:
    """Nothing merged is no demand at all."""
    assert strictest() == Policy()


@given(POLICIES, POLICIES)
def test_what_asks_for_less_is_named(policy: Policy, than: Policy) -> None:
    """Exactly the demands that are named and laxer; a demand that is not named is not asked away."""
    less = asks_for_less(policy, than)
    named = policy.model_copy(update=dict.fromkeys(set(Policy.model_fields) - set(less)))
    assert all(getattr(named, name) is not None and getattr(than, name) is not None for name in less)
    rest = strictest(policy.model_copy(update=dict.fromkeys(less)), than)
    assert rest == strictest(policy, than)
    assert bool(less) == any(
        getattr(policy, name) is not None
        and getattr(than, name) is not None
        and getattr(strictest(policy, than), name) != getattr(policy, name)
        for name in set(Policy.model_fields) - {"windows"}
    )


def test_examples() -> None:
    """A lower charge and leave to interrupt are less; a higher charge and silence are not."""
    own = Policy(min_battery_percent=40, allow_in_use=False, require_approval=True)
    assert asks_for_less(Policy(min_battery_percent=10, allow_in_use=True), own) == (
        "min_battery_percent",
        "allow_in_use",
    )
    assert asks_for_less(Policy(require_approval=False), own) == ("require_approval",)
    assert asks_for_less(Policy(min_battery_percent=90), own) == ()
    assert asks_for_less(Policy(), own) == ()
