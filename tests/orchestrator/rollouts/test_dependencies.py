"""A release that needs itself, by whatever detour, is never rolled out."""

import pytest

from orchestrator.errors import ConflictError
from orchestrator.rollouts.dependencies import check_needs
from protocol.manifest import ReleaseInfo
from protocol.versions import compare
from tests.orchestrator.rollouts.fleets import release

APP = release("2.0", "app", requires={"os": "3.0"})


@pytest.mark.parametrize(
    ("published", "chain"),
    [
        pytest.param(
            [release("3.0", "os", requires={"app": "2.0"})],
            "gateway/2.0 needs os 3.0 (gateway/3.0), which needs app 2.0 (gateway/2.0 again)",
            id="two need each other",
        ),
        pytest.param(
            [release("3.0", "os", requires={"mcu": "1"}), release("1", "mcu", requires={"app": "2.0"})],
            "gateway/2.0 needs os 3.0 (gateway/3.0), which needs mcu 1 (gateway/1), which needs app 2.0 (gateway/2.0",
            id="three in a circle",
        ),
        pytest.param(
            [
                release("3.0", "os"),
                release("1.5", "app", must_pass_through=True, requires={"mcu": "1"}),
                release("1", "mcu", requires={"app": "2.0"}),
            ],
            "gateway/2.0 needs to pass through app 1.5 (gateway/1.5), which needs mcu 1 (gateway/1), which needs app",
            id="through one that must be passed",
        ),
        pytest.param(
            [release("3.0", "os", requires={"mcu": "1"}), release("1", "mcu", requires={"os": "3.0"})],
            "which needs mcu 1 (gateway/1), which needs os 3.0 (gateway/3.0 again)",
            id="a circle on the way",
        ),
    ],
)
def test_a_circle_is_refused_link_by_link(published: list[ReleaseInfo], chain: str) -> None:
    """Whoever reads it sees which release to change."""
    with pytest.raises(ConflictError) as refused:
        check_needs(APP, [APP, *published], compare)
    assert chain in str(refused.value)


@pytest.mark.parametrize(
    "published",
    [
        pytest.param([], id="what it needs is not here; devices may have it"),
        pytest.param([release("3.0", "os")], id="no need beyond"),
        pytest.param([release("3.0", "os", requires={"app": "1.9"}), release("1.9", "app")], id="an older app"),
        pytest.param([release("3.0", "os", hardware=["rev-z"], requires={"app": "2.0"})], id="only for other hardware"),
        pytest.param(
            [release("3.0", "os", requires={"mcu": "1"}), release("1", "mcu"), release("2.5", must_pass_through=True)],
            id="a step behind it",
        ),
    ],
)
def test_a_chain_that_ends_is_no_circle(published: list[ReleaseInfo]) -> None:
    """Two ways to one release are none either."""
    check_needs(APP, [APP, *published], compare)


def test_a_long_chain_ends() -> None:
    """Longer than Python recurses; each release is looked into once."""
    chain = [release(f"{n}", f"c{n}", requires={f"c{n + 1}": f"{n + 1}"}) for n in range(400)]
    check_needs(chain[0], chain, compare)
