"""How the demo ends: with one sentence, out of whatever depth of task groups it came."""

from orchestrator.demo.cli import _first
from orchestrator.errors import OperationError


def test_the_sentence_for_a_person_comes_out_of_any_group() -> None:
    """Deep inside, and beside something that says less; Debian's Python 3.11.2 keeps such groups together."""
    sentence = OperationError("demo: within 150 s the end did not come about")
    inner = ExceptionGroup("scene", [ValueError("a"), sentence])
    assert _first(ExceptionGroup("demo", [inner, KeyError("b")])) is sentence
    alone = ValueError("a")
    assert _first(ExceptionGroup("demo", [ExceptionGroup("scene", [alone])])) is alone
