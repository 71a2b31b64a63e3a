"""Which director keys the offline keys have listed."""

import json
import shutil
from pathlib import Path

import pytest

from orchestrator.config import Home
from orchestrator.errors import OperationError
from orchestrator.releases.director_history import listed_directors
from orchestrator.releases.package_trust import director_keys
from tests.orchestrator.cli.homes import FLEET, make_home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home as ``init`` makes it."""
    return make_home(tmp_path / "home")


def test_the_listed_key_is_found(home: Home) -> None:
    """From the folder's own root, and from one that was kept."""
    found = listed_directors(home.trust, FLEET)
    assert sorted(found) == sorted(director_keys(home.trust, FLEET))
    shutil.copy(home.trust / "1.root.json", home.path / "kept.json")
    assert listed_directors(home.trust, FLEET, home.path / "kept.json") == found


def test_targets_without_a_valid_signature_list_nobody(home: Home) -> None:
    """Whoever may write the folder cannot add a director."""
    file = home.trust / "1.targets.json"
    data = json.loads(file.read_bytes())
    data["signed"]["version"] = 2
    (home.trust / "2.targets.json").write_text(json.dumps(data))
    assert len(listed_directors(home.trust, FLEET)) == 1
    file.unlink()
    with pytest.raises(OperationError, match="no targets signed by its root"):
        listed_directors(home.trust, FLEET)


def test_another_root_vouches_for_nothing(home: Home, tmp_path: Path) -> None:
    """Nor does a root that follows from none."""
    other = make_home(tmp_path / "other")
    with pytest.raises(OperationError, match="no targets signed by its root"):
        listed_directors(home.trust, FLEET, other.trust / "1.root.json")
    shutil.copy(other.trust / "1.root.json", home.trust / "2.root.json")
    with pytest.raises(OperationError, match="do not follow"):
        listed_directors(home.trust, FLEET)
    with pytest.raises(OperationError, match="cannot be read"):
        listed_directors(home.trust, FLEET, tmp_path / "nowhere.json")


def test_another_fleet_has_no_director_here(home: Home) -> None:
    """The sentence names it."""
    with pytest.raises(OperationError, match="a director of fleet south"):
        listed_directors(home.trust, "south")
