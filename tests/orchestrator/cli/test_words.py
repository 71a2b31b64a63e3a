"""Durations, shares, instants and stages as people write them."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.words import read_duration, read_ids, read_instant, read_ratio, read_stage
from orchestrator.errors import UsageError
from orchestrator.model.plan import StageSpec


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86_400), ("0", 0), (" 5 s ", 5)]
)
def test_durations(text: str, seconds: float) -> None:
    """Seconds, unless a unit is named."""
    assert read_duration(text, "--soak") == seconds


@pytest.mark.parametrize(("text", "share"), [("0.95", 0.95), ("95%", 0.95), ("1", 1), ("100%", 1)])
def test_shares(text: str, share: float) -> None:
    """As a number or in percent."""
    assert read_ratio(text, "--success") == share


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("canary=25%", StageSpec(name="canary", percent=25)),
        ("canary = 2.5%", StageSpec(name="canary", percent=2.5)),
        ("canary=group:lab", StageSpec(name="canary", group="lab")),
        ("canary=lab", StageSpec(name="canary", group="lab")),
        ("canary=site=lab", StageSpec(name="canary", selector="site=lab")),
        ("canary=site!=lab,id=x", StageSpec(name="canary", selector="site!=lab,id=x")),
        ("canary=site in (a,b)", StageSpec(name="canary", selector="site in (a,b)")),
        ("canary=selector:site=lab", StageSpec(name="canary", selector="site=lab")),
    ],
)
def test_stages(text: str, stage: StageSpec) -> None:
    """A share of all members, a group, or a selector."""
    assert read_stage(text) == stage


def test_instants_need_their_zone() -> None:
    """A time without a zone means something else in every place."""
    assert read_instant("2026-12-01T03:00:00Z", "--start-at") == datetime(2026, 12, 1, 3, tzinfo=UTC)
    with pytest.raises(UsageError, match="with its zone"):
        read_instant("2026-12-01T03:00:00", "--start-at")


def test_ids_are_taken_once_in_order() -> None:
    """A name twice counts once."""
    assert read_ids(["b", "a", "b"], "device id") == ["b", "a"]


@given(st.text(max_size=30))
def test_no_words_break_the_readers(text: str) -> None:
    """Whatever is typed is read or is a usage error, never anything else."""
    for read in (
        lambda: read_duration(text, "--soak"),
        lambda: read_ratio(text, "--success"),
        lambda: read_instant(text, "--start-at"),
        lambda: read_stage(text),
        lambda: read_stage(f"a={text}"),
        lambda: read_stage(f"a={text}%"),
        lambda: read_ids([text], "device id"),
    ):
        try:
            read()
        except UsageError as error:
            assert str(error)
