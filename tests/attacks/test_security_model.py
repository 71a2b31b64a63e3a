"""The security model speaks of attacks by the names that tests have."""

import re
from pathlib import Path

from tests.attacks.catalogue import IDS

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "security-model.md"
_ID = re.compile(r"\b([ARFWMBXSDKEINO])(\d{1,2})(?: to \1(\d{1,2}))?\b")


def test_the_model_names_every_attack_and_no_other() -> None:
    """Each of the catalogue stands with some adversary; what is named there is in the catalogue."""
    named: set[str] = set()
    for letter, first, last in _ID.findall(PAGE.read_text()):
        named |= {f"{letter}{number}" for number in range(int(first), int(last or first) + 1)}
    assert sorted(named - set(IDS)) == []
    assert sorted(set(IDS) - named) == []
