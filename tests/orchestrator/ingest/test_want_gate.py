"""A device that wants everything for ever is looked at as often as any other."""

from collections import Counter

from orchestrator.config_brokers import ChunkSettings
from orchestrator.ingest.parse import Checked
from orchestrator.ingest.want_gate import WantGate
from protocol.clock import ManualClock
from protocol.reports import Presence, Want
from tests.orchestrator.ingest.speakers import NOW


def want(device: str, *numbers: int) -> Checked:
    """A want of chunks by number."""
    return Checked(device, Want(rollout="r-1", cids=[f"{number:064x}" for number in numbers]))


def test_a_flood_of_one_device_costs_the_others_nothing() -> None:
    """Ten thousand wants come to its bucket and what flows into it; another device is served as if alone."""
    clock, dropped = ManualClock(NOW), Counter[str]()
    gate = WantGate(
        clock, ChunkSettings(wants_per_device=64, want_period_s=10), lambda reason, n: dropped.update({reason: n})
    )
    admitted = 0
    for start in range(0, 640_000, 64):
        for item in gate.admit([want("bad", *range(start, start + 64))]):
            assert isinstance(item.content, Want)
            admitted += len(item.content.cids)
        clock.advance(0.001)
    assert 64 + 63 <= admitted <= 64 + 64
    assert dropped == {"device_limit": 640_000 - admitted}
    assert gate.admit([want("good", 1, 2)]) == [want("good", 1, 2)]


def test_a_want_is_cut_to_what_is_left_and_everything_else_passes() -> None:
    """A chunk that is named twice counts once."""
    gate = WantGate(ManualClock(NOW), ChunkSettings(wants_per_device=3), lambda *_: None)
    here = Checked("d1", Presence(session=1, online=True))
    assert gate.admit([want("d1", 1, 1, 2), here, want("d1", 3, 4)]) == [want("d1", 1, 2), here, want("d1", 3)]
    assert gate.admit([want("d1", 5), here]) == [here]
