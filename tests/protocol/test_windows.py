"""Maintenance windows on the wire: what is read, what is refused, and that the largest set fits."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from securesystemslib.signer import CryptoSigner

from protocol.directives import ANNOUNCEMENT_TYPE, Action, Announcement
from protocol.envelopes import decode, encode, sign
from protocol.manifest import Policy
from protocol.topics import RULES, Kind
from protocol.windows import DAYS, MAX_WINDOWS, PolicyWindow
from tests.golden.samples import MESSAGES

GOOD: dict[str, Any] = {"days": ["sat", "sun"], "start": "02:30", "minutes": 90}
WINDOWS = st.builds(
    PolicyWindow,
    days=st.lists(st.sampled_from(DAYS), min_size=1, unique=True).map(tuple),
    start=st.times().map(lambda time: f"{time:%H:%M}"),
    minutes=st.integers(1, 1440),
)


@given(st.lists(WINDOWS, min_size=1, max_size=MAX_WINDOWS).map(tuple))
def test_windows_read_back(windows: tuple[PolicyWindow, ...]) -> None:
    """JSON and model are inverse, inside a policy too."""
    policy = Policy(windows=windows)
    assert decode(encode(policy), Policy) == policy
    assert Policy.model_validate(policy.model_dump(mode="json")) == policy


def test_no_windows_are_not_written() -> None:
    """A policy without any makes the bytes that it made before there were windows, also where None is written."""
    assert Policy.model_validate_json("{}").windows is None
    assert "windows" not in Policy().model_dump(mode="json")
    assert encode(Policy(min_battery_percent=1)) == b'{"min_battery_percent":1}'


@pytest.mark.parametrize(
    "changes",
    [
        {"days": []},
        {"days": ["monday"]},
        {"days": ["mon", "mon"]},
        {"start": "24:00"},
        {"start": "2:30"},
        {"start": "02:30\n"},
        {"start": "02:30:00"},
        {"start": "02:30Z"},
        {"minutes": 0},
        {"minutes": 1441},
    ],
    ids=str,
)
def test_what_is_no_window(changes: dict[str, Any]) -> None:
    """At least one day, a wall time of hours and minutes, and no longer than a day."""
    PolicyWindow.model_validate(GOOD)
    with pytest.raises(ValidationError):
        PolicyWindow.model_validate(GOOD | changes)


@pytest.mark.parametrize("count", [0, MAX_WINDOWS + 1])
def test_how_many(count: int) -> None:
    """None at all is said by leaving them out: an empty set would be open never."""
    Policy.model_validate({"windows": [GOOD] * MAX_WINDOWS})
    with pytest.raises(ValidationError):
        Policy.model_validate({"windows": [GOOD] * count})


def test_what_a_newer_version_adds_is_tolerated() -> None:
    """A field that is not known here does not make an announcement unreadable."""
    assert PolicyWindow.model_validate(GOOD | {"colour": "red"}) == PolicyWindow.model_validate(GOOD)


def test_the_largest_set_fits_into_an_announcement() -> None:
    """Every window on every day, signed, is still looked at."""
    windows = tuple(PolicyWindow(days=DAYS, start="23:59", minutes=1440) for _ in range(MAX_WINDOWS))
    policy = Policy(
        min_battery_percent=100, require_approval=False, allow_in_use=False, require_way_back=False,
        min_interval_s=2**53 - 1, windows=windows,
    )  # fmt: skip
    sample = MESSAGES["announcement"]
    assert isinstance(sample, Announcement)
    message = sample.model_copy(update={"policy": policy, "action": Action.INSTALL, "rollout": "r" * 64})
    raw = sign(encode(message), ANNOUNCEMENT_TYPE, CryptoSigner.generate_ed25519())
    assert len(raw) <= RULES[Kind.ANNOUNCE].max_bytes
