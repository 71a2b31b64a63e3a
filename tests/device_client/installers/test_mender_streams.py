"""Payloads through named pipes: all of them, none of them, some of them; and modules that never come to an end."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from device_client.installers.installer import InstallError
from protocol.errors import ContentError, ErrorCode
from protocol.manifest import Artifact
from tests.device_client.installers.mender_bench import Bench, MakeArtifact

FILES = {"a.img": os.urandom(180_000), "b": b"abc", "c": b"", "d": os.urandom(70_000)}

STREAMS = r"""#!/bin/sh
set -eu
case "$1" in
    ProvidePayloadFileSizes) cat "${0%/*}/says/sizes" 2>/dev/null || true ;;
    Download|DownloadWithFileSizes)
        while true; do
            line="$(cat stream-next)"
            [ -n "$line" ] || break
            echo "$line" >> "${0%/*}/device/lines"
            name="${line%% *}"
            cat "$name" > "${0%/*}/device/${name#streams/}"
        done
        ;;
esac
"""


@pytest.fixture
def new(directory_artifact: MakeArtifact) -> tuple[Artifact, bytes]:
    """A release of four files, an empty one among them."""
    return directory_artifact({name: (0o644, content) for name, content in FILES.items()}, {})


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A device with a module that takes streams."""
    return Bench(tmp_path).make(STREAMS)


@pytest.mark.parametrize("sizes", ["No", "Yes"])
def test_streams(bench: Bench, new: tuple[Artifact, bytes], sizes: str) -> None:
    """Each arrives whole, in order, with its size where the module asked for that; nothing is kept twice."""
    bench.say("sizes", sizes)
    bench.install(new)
    for name, content in FILES.items():
        assert (bench.device / name).read_bytes() == content
    expected = [
        f"streams/{name} {len(content)}" if sizes == "Yes" else f"streams/{name}" for name, content in FILES.items()
    ]
    assert (bench.device / "lines").read_text().splitlines() == expected
    assert sorted(path.name for path in bench.tree.iterdir()) == [
        "current_artifact_group",
        "current_artifact_name",
        "current_device_type",
        "header",
        "tmp",
        "version",
    ]


def test_a_module_that_declines(bench: Bench, new: tuple[Artifact, bytes]) -> None:
    """It finds the payloads as files, for its user's eyes only."""
    bench.write_module("#!/bin/sh\nexit 0\n")
    bench.install(new)
    for name, content in FILES.items():
        file = bench.tree / "files" / name
        assert (file.read_bytes(), file.stat().st_mode & 0o777) == (content, 0o600)
    assert not (bench.tree / "stream-next").exists()
    assert not (bench.tree / "streams").exists()


def test_one_file(bench: Bench, file_artifact: "object") -> None:
    """An artifact that is a file is one payload, by its name."""
    artifact, stream = file_artifact(b"payload", None)  # type: ignore[operator]
    bench.install((artifact, stream))
    assert (bench.device / "app").read_bytes() == b"payload"


def test_no_payload(bench: Bench, directory_artifact: MakeArtifact) -> None:
    """An artifact without files: the first line is the end."""
    bench.install(directory_artifact({}, {}))
    assert not (bench.device / "lines").exists()


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ('f="$(cat stream-next)"; head -c 1000 "$f" > /dev/null', "had not read all payloads"),
        ("cat stream-next > /dev/null", "had not read all payloads"),
        ('f="$(cat stream-next)"; cat "$f" > /dev/null', "had not read all payloads"),
        ('f="$(cat stream-next)"; head -c 1000 "$f" > /dev/null; echo full >&2; exit 9', "ended with code 9"),
        ("rm stream-next; sleep 0.05; exit 9", "ended with code 9"),
    ],
    ids=["some of a payload", "a name only", "one payload", "fails", "removes the pipe"],
)
def test_a_module_that_stops_reading(bench: Bench, new: tuple[Artifact, bytes], body: str, match: str) -> None:
    """Whatever its exit code says, a payload that was begun and not read is a failure; only Cleanup follows."""
    bench.write_module(f'#!/bin/sh\necho "$1" >> "${{0%/*}}/trace"\ncase "$1" in Download) {body} ;; esac\n')
    with pytest.raises(InstallError, match=match):
        bench.install(new)
    bench.go_back()
    assert bench.trace[-2:] == ["Download", "Cleanup"]
    assert bench.version == "1.0.0"


@pytest.mark.parametrize(
    "body",
    [
        "sleep 600 & sleep 600",
        'f="$(cat stream-next)"; exec 3< "$f"; head -c 10 <&3; sleep 600',
        pytest.param("cat stream-next; cat stream-next", marks=pytest.mark.slow),
    ],
    ids=["before it reads", "in a payload", "waits for another name"],
)
def test_a_module_that_hangs(bench: Bench, new: tuple[Artifact, bytes], body: str) -> None:
    """It is killed at its deadline, with all that it started."""
    bench.settings = bench.settings.model_copy(update={"timeout_s": 1})
    bench.write_module(f'#!/bin/sh\ncase "$1" in Download) echo $$ > "${{0%/*}}/pid"; {body} ;; esac\n')
    begun = time.monotonic()
    with pytest.raises(InstallError, match=r"Download: .* did not end within 1 s"):
        bench.install(new)
    assert time.monotonic() - begun < 10
    group = int((bench.modules / "pid").read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _members(group):
        time.sleep(0.01)
    assert _members(group) == []


def test_a_stream_that_is_too_short(bench: Bench, new: tuple[Artifact, bytes]) -> None:
    """It is a failure of ours, and the module does not outlive it."""
    artifact, stream = new
    with pytest.raises(InstallError, match=r"ends .* B too early"):
        bench.install((artifact, stream[:100_000]))
    bench.write_module("#!/bin/sh\nexit 0\n")
    with pytest.raises(ContentError, match="too early"):
        bench.install((artifact, stream[:100_000]))


@pytest.mark.parametrize("name", ["a/b", "a b", "a\nb", "a\tb"])
def test_names_that_a_module_cannot_be_given(bench: Bench, directory_artifact: MakeArtifact, name: str) -> None:
    """They are refused before anything is run."""
    with pytest.raises(ContentError, match="takes names without") as refused:
        bench.install(directory_artifact({name: (0o644, b"")}, {}))
    assert refused.value.code is ErrorCode.INSTALL


def test_links_and_too_many(bench: Bench, directory_artifact: MakeArtifact) -> None:
    """A link is no payload; what does not fit in an environment is too many."""
    with pytest.raises(ContentError, match="regular files only"):
        bench.install(directory_artifact({"a": (0o644, b"")}, {"b": "a"}))
    with pytest.raises(ContentError, match="at most 128 files"):
        bench.install(directory_artifact({f"f{n}": (0o644, b"") for n in range(129)}, {}))


def test_hashes_are_told(bench: Bench, new: tuple[Artifact, bytes]) -> None:
    """In the order of the payloads."""
    bench.write_module('#!/bin/sh\n[ "$1" != ArtifactInstall ] || env > "${0%/*}/env"\n')
    bench.install(new)
    lines = (bench.modules / "env").read_text().splitlines()
    for number, content in enumerate(FILES.values()):
        assert f"OTA_PAYLOAD_SHA256_{number}={hashlib.sha256(content).hexdigest()}" in lines


def _members(group: int) -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(stat.parent.name)
    return found
