"""Which stage names a device: by group, selector or list. Pure; five hundred stages cost about as much as five.

A stage whose selector asks for one value of a key (``site=lab``) is looked up by that value instead of being tried.
"""

from collections.abc import Sequence

from orchestrator.model.candidate import Candidate
from orchestrator.model.plan import StageSpec
from orchestrator.model.selector import Operator, Selector, Test, reader
from orchestrator.rollouts.members import Groups

NONE = -1
"""No stage names it; a percentage may take it."""
_Tried = list[tuple[int, Test]]


class StageChoice:
    """Says of each device which stage is the first that names it."""

    def __init__(self, stages: Sequence[StageSpec], groups: Groups) -> None:
        self._named: dict[str, int] = {}  # device -> the first stage whose group or list has it
        self._tried: _Tried = []
        by_key: dict[str, dict[str, _Tried]] = {}
        for position, stage in enumerate(stages):
            for device in stage.devices or (groups[stage.group] if stage.group else ()):
                self._named.setdefault(device, position)
            if stage.selector:
                self._index(position, Selector.parse(stage.selector), by_key)
        self._by_key = [(reader(key), by_value) for key, by_value in by_key.items()]

    def first(self, device: Candidate) -> int:
        """The position of the first stage that names it; ``NONE`` where none does."""
        best = self._named.get(device.id, NONE) if self._named else NONE
        for read, by_value in self._by_key:
            tried = by_value.get(read(device) or "")
            if tried:
                best = _first_of(tried, device, best)
        return _first_of(self._tried, device, best) if self._tried else best

    def _index(self, position: int, selector: Selector, by_key: dict[str, dict[str, _Tried]]) -> None:
        entry = (position, selector.compiled())
        asked = next((term for term in selector.terms if term.operator is not Operator.NOT_EQUAL), None)
        if asked is None:
            self._tried.append(entry)
            return
        by_value = by_key.setdefault(asked.key, {})
        for value in dict.fromkeys(asked.values):
            by_value.setdefault(value, []).append(entry)


def _first_of(tried: _Tried, device: Candidate, best: int) -> int:
    """The first of these that matches, where it stands before the best so far."""
    for position, matches in tried:
        if 0 <= best < position:
            break  # those behind it stand later still
        if matches(device):
            return position
    return best
