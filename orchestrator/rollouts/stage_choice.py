"""Which stage names a device: by group, selector or list. Pure; five hundred stages cost about as much as five.

A stage whose selector asks for one value of a key (``site=lab``) is looked up by that value instead of being tried.
"""

from collections.abc import Iterator, Sequence

from orchestrator.model.candidate import Candidate
from orchestrator.model.plan import StageSpec
from orchestrator.model.selector import Operator, Reader, Selector, Term, Test, reader
from orchestrator.rollouts.members import Groups

NONE = -1
"""No stage names it; a percentage may take it."""
_Tried = list[tuple[int, Test]]


class StageChoice:
    """Says of each device which stage is the first that names it."""

    def __init__(self, stages: Sequence[StageSpec], groups: Groups) -> None:
        self._named: dict[str, int] = {}  # device -> the first stage whose group or list has it
        self._by_key: dict[str, tuple[Reader, dict[str, _Tried]]] = {}
        self._tried: _Tried = []
        for position, stage in enumerate(stages):
            for device in stage.devices or (groups[stage.group] if stage.group else ()):
                self._named.setdefault(device, position)
            if stage.selector:
                self._index(position, Selector.parse(stage.selector))

    def first(self, device: Candidate) -> int:
        """The position of the first stage that names it; ``NONE`` where none does."""
        best = self._named.get(device.id, NONE)
        for tried in self._candidates(device):
            for position, matches in tried:
                if 0 <= best < position:
                    break  # those behind it stand later still
                if matches(device):
                    best = position
                    break
        return best

    def _candidates(self, device: Candidate) -> Iterator[_Tried]:
        for read, by_value in self._by_key.values():
            found = by_value.get(read(device) or "")
            if found:
                yield found
        if self._tried:
            yield self._tried

    def _index(self, position: int, selector: Selector) -> None:
        entry = (position, selector.compiled())
        asked = next((term for term in selector.terms if term.operator is not Operator.NOT_EQUAL), None)
        if asked is None:
            self._tried.append(entry)
            return
        _, by_value = self._by_key.setdefault(asked.key, (reader(asked.key), {}))
        for value in _values(asked):
            by_value.setdefault(value, []).append(entry)


def _values(term: Term) -> Sequence[str]:
    return tuple(dict.fromkeys(term.values))
