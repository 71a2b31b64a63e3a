"""Files against the manifest: every single difference is found and named."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_client.trees import File, Link, Tree
from device_client.verification.files import check_tree, differences
from protocol.errors import ContentError, ErrorCode
from protocol.manifest import Artifact

MakeArtifact = Callable[[dict[str, tuple[int, bytes]], dict[str, str]], tuple[Artifact, bytes]]
MakeFile = Callable[[bytes, int | None], tuple[Artifact, bytes]]
FILES = {"bin/app": (0o755, b"program"), "lib/a.py": (0o644, b"a = 1\n"), "empty": (0o600, b"")}
LINKS = {"bin/run": "app"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The files as the manifest lists them."""
    for path, (mode, content) in FILES.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
        (tmp_path / path).chmod(mode)
    (tmp_path / "bin" / "run").symlink_to("app")
    return tmp_path


def _relink(tree: Path, target: str) -> None:
    (tree / "bin" / "run").unlink()
    (tree / "bin" / "run").symlink_to(target)


def _into_link(tree: Path) -> None:
    (tree / "lib" / "a.py").rename(tree / "bin" / "moved")
    (tree / "lib" / "a.py").symlink_to("../bin/moved")


def _into_file(tree: Path) -> None:
    (tree / "bin" / "run").unlink()
    shutil.copy(tree / "bin" / "app", tree / "bin" / "run")


def test_the_whole_tree_fits(tree: Path, directory_artifact: MakeArtifact) -> None:
    """What lies there as listed is accepted."""
    check_tree(tree, directory_artifact(FILES, LINKS)[0])


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        pytest.param(lambda t: (t / "bin/app").write_bytes(b"progrbm"), "'bin/app': expected sha256", id="byte"),
        pytest.param(lambda t: (t / "bin/app").write_bytes(b"program "), "expected 7 B, found 8", id="length"),
        pytest.param(lambda t: (t / "lib/a.py").chmod(0o755), "expected mode 0644, found 0755", id="mode"),
        pytest.param(lambda t: (t / "bin/app").chmod(0o4755), "expected mode 0755, found 4755", id="setuid"),
        pytest.param(lambda t: (t / "empty").unlink(), "'empty' is missing", id="missing file"),
        pytest.param(lambda t: (t / "lib/x").write_bytes(b""), "'lib/x' is not listed", id="extra file"),
        pytest.param(lambda t: (t / "lib/x").mkdir(), "'lib/x' is not listed", id="extra folder"),
        pytest.param(lambda t: (t / "lib/x").symlink_to("a.py"), "'lib/x' is not listed", id="extra link"),
        pytest.param(lambda t: os.mkfifo(t / "lib/x"), "'lib/x' is not listed", id="extra pipe"),
        pytest.param(lambda t: _relink(t, "../empty"), "link 'bin/run': expected target 'app'", id="swapped link"),
        pytest.param(lambda t: (t / "bin/run").unlink(), "link 'bin/run'", id="missing link"),
        pytest.param(_into_link, "'lib/a.py' is missing", id="file became a link to the same bytes"),
        pytest.param(_into_file, "link 'bin/run'", id="link became a file"),
        pytest.param(shutil.rmtree, "cannot be read", id="all gone"),
    ],
)
def test_every_difference(
    tree: Path, directory_artifact: MakeArtifact, spoil: Callable[[Path], object], named: str
) -> None:
    """E_POSTINSTALL with the first difference."""
    spoil(tree)
    with pytest.raises(ContentError) as refused:
        check_tree(tree, directory_artifact(FILES, LINKS)[0])
    assert refused.value.code is ErrorCode.POSTINSTALL
    assert named in refused.value.detail


@pytest.mark.parametrize(("mode", "found"), [(None, 0o644), (0o755, 0o755)])
def test_a_single_file(tmp_path: Path, file_artifact: MakeFile, mode: int | None, found: int) -> None:
    """An artifact that is one file is compared as one."""
    place = tmp_path / "app"
    place.write_bytes(b"program")
    place.chmod(found)
    check_tree(place, file_artifact(b"program", mode)[0])
    for spoil in (lambda: place.chmod(0o4755), lambda: place.write_bytes(b"progrbm"), place.unlink):
        spoil()
        with pytest.raises(ContentError):
            check_tree(place, file_artifact(b"program", mode)[0])


def test_a_directory_in_place_of_the_file(tmp_path: Path, file_artifact: MakeFile) -> None:
    """A directory is not the file, even when it holds it."""
    (tmp_path / "app").write_bytes(b"program")
    with pytest.raises(ContentError):
        check_tree(tmp_path, file_artifact(b"program", 0o644)[0])


ROWS = st.dictionaries(
    st.sampled_from(["a", "b", "c/d", "c/e"]),
    st.tuples(st.sampled_from([0o644, 0o755]), st.sampled_from([b"", b"x", b"y"])),
)


@given(listed=ROWS, found=ROWS, extra=st.lists(st.sampled_from(["l", "c/m"]), unique=True))
def test_no_difference_means_equal(
    directory_artifact: MakeArtifact,
    listed: dict[str, tuple[int, bytes]],
    found: dict[str, tuple[int, bytes]],
    extra: list[str],
) -> None:
    """There is no difference exactly when both trees are equal."""
    artifact, _ = directory_artifact(listed, {})
    other, _ = directory_artifact(found, {})
    files = tuple(File(f.path, f.mode, f.length, f.sha256) for f in other.files)
    links = tuple(Link(path, "a") for path in extra)
    folders = ("c",) if any(path.startswith("c/") for path in (*found, *extra)) else ()
    same = listed == found and not extra
    assert (not list(differences(Tree(files, links, folders, ()), artifact))) == same
