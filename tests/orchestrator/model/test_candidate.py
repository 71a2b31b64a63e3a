"""A device as planning sees it."""

from tests.orchestrator.rollouts.fleets import candidate


def test_texts_are_read_when_they_are_asked_for() -> None:
    """Components and labels by name; a device without a label for it is at no site."""
    found = candidate(components={"os": "1.0"}, labels={"site": "lab", "line": "é"})
    assert (found.components, found.labels) == ({"os": "1.0"}, {"site": "lab", "line": "é"})
    assert (found.site, candidate().site) == ("lab", "")


def test_what_is_not_asked_for_may_be_anything() -> None:
    """A text that no selector looks at is never parsed."""
    assert candidate(labels_text="not JSON").id == "d1"
