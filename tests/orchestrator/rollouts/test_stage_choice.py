"""Which stage names a device: the first of those that do, however they are looked up."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.plan import StageSpec
from orchestrator.model.selector import Selector
from orchestrator.rollouts.members import Groups
from orchestrator.rollouts.stage_choice import NONE, StageChoice
from tests.orchestrator.rollouts.fleets import candidate

_VALUES = st.sampled_from("abc")
_SELECTORS = st.one_of(
    st.builds("site={}".format, _VALUES),
    st.builds("line={}".format, _VALUES),
    st.builds("site!={}".format, _VALUES),
    st.builds("site in ({},{})".format, _VALUES, _VALUES),
    st.builds("site!={},line={}".format, _VALUES, _VALUES),
    st.builds("site={},line!={}".format, _VALUES, _VALUES),
)
_STAGES = st.one_of(
    st.builds(lambda text: {"selector": text}, _SELECTORS),
    st.sampled_from([{"group": "g"}, {"devices": ("d1", "d9")}, {"group": "none"}]),
)
GROUPS: Groups = {"g": frozenset({"d1", "d2"}), "none": frozenset()}


@given(
    st.lists(_STAGES, min_size=1, max_size=12),
    st.sampled_from(["d1", "d2", "d3"]),
    st.dictionaries(st.sampled_from(["site", "line"]), _VALUES),
)
def test_the_first_stage_that_names_it(named: list[dict[str, str]], device: str, labels: dict[str, str]) -> None:
    """The same answer as trying one stage after the other."""
    stages = [StageSpec.model_validate({"name": f"s{number}", **words}) for number, words in enumerate(named)]
    found = candidate(device, labels=labels)
    tried = (
        position
        for position, stage in enumerate(stages)
        if device in (stage.devices or ())
        or (stage.group and device in GROUPS[stage.group])
        or (stage.selector and Selector.parse(stage.selector).matches(found))
    )
    assert StageChoice(stages, GROUPS).first(found) == next(tried, NONE)


def test_a_share_names_nobody() -> None:
    """Who is in it is decided when all members are known."""
    assert StageChoice([StageSpec(name="all", percent=100)], {}).first(candidate()) == NONE
