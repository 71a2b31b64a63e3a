"""A publisher's folder and a small image for every test that makes a release."""

import random
from pathlib import Path

import pytest

from tests.orchestrator.publisher.workshop import Publisher, make_publisher


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    """A publisher of one person."""
    return make_publisher(tmp_path / "home")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small image."""
    root, source = tmp_path / "image", random.Random(5)
    for number in range(12):
        path = root / f"d{number % 3}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.randbytes(source.randrange(1, 90_000)))
    (root / "link").symlink_to("d0/f0")
    return root
