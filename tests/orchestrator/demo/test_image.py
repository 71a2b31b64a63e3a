"""The three versions of the demo's image."""

import subprocess
from pathlib import Path

import pytest

from orchestrator.demo.image import SELFTEST, make_images
from orchestrator.errors import NotFoundError, UsageError


def selftest(tree: Path) -> int:
    environment = {"FLAGSHIP_RELEASE": str(tree), "FLAGSHIP_VERSION": "x", "PATH": "/usr/bin:/bin"}
    return subprocess.run(["sh", str(tree / SELFTEST)], env=environment, check=False).returncode


def test_only_the_bad_version_fails_its_own_self_test(tmp_path: Path) -> None:
    """The good one and the factory's pass; nothing in the demo decides who fails."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(30):
        (source / f"m{number:02}.py").write_text(f"x = {number}\n")
    images = make_images(source, tmp_path / "images")
    assert selftest(images.factory) == 0
    assert selftest(images.good) == 0
    assert selftest(images.bad) == 1
    changed = [
        path.name for path in images.factory.glob("*.py") if path.read_text() != (images.good / path.name).read_text()
    ]
    assert 0 < len(changed) < 5
    assert images.length == sum(path.stat().st_size for path in images.good.rglob("*") if path.is_file())


def test_bad_images_are_refused(tmp_path: Path) -> None:
    """A missing folder and an empty one each get a sentence."""
    with pytest.raises(NotFoundError, match="no such directory"):
        make_images(tmp_path / "nowhere", tmp_path / "images")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no regular file"):
        make_images(tmp_path / "empty", tmp_path / "other")
