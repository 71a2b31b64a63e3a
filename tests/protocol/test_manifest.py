"""The manifest: what adds up is read, what leaves the tree or its bounds is refused."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from protocol.chunks import MAX_BASE_BYTES, MAX_BASES, MAX_CHUNK_BYTES
from protocol.errors import ContentError, ErrorCode
from protocol.manifest import (
    MAX_MANIFEST_BYTES,
    Artifact,
    Manifest,
    ReleaseInfo,
    check_link,
    check_member,
)

B64 = base64.b64encode(b"\1" * 32).decode()
HEX = "ab" * 32


def row(length: int = 5, body: int = 5) -> tuple[str, str, str, str, int, int]:
    """One chunk."""
    return (B64, B64, B64, "raw", length, body)


def file(path: str, offset: int = 0, length: int = 5) -> dict[str, Any]:
    """One file."""
    return {"path": path, "mode": 0o644, "offset": offset, "length": length, "sha256": HEX}


def tree(files: list[dict[str, Any]], links: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    """An artifact of one chunk per file."""
    return {
        "component": "app",
        "kind": "directory",
        "length": sum(entry["length"] for entry in files),
        "sha256": HEX,
        "files": files,
        "links": [{"path": path, "target": target} for path, target in (links or {}).items()],
        "chunks": [row(entry["length"]) for entry in files if entry["length"]],
        **changes,
    }


def test_a_manifest_reads_back() -> None:
    """JSON and model are inverse, and equal manifests make equal bytes."""
    artifact = Artifact.model_validate(tree([file("a/b"), file("c", 5)], {"d": "a/b"}))
    manifest = Manifest(product="gateway", version="1.1.0", artifacts=[artifact])
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert b" " not in manifest.to_json()


def test_chunks_stand_one_after_the_other() -> None:
    """Every chunk's place in the stream follows from the lengths before it."""
    artifact = Artifact.model_validate(tree([file("a"), file("b", 5, 7)]))
    refs = list(artifact.chunk_refs())
    assert [(ref.offset, ref.length) for ref in refs] == [(0, 5), (5, 7)]
    assert refs[0].key == b"\1" * 32


@pytest.mark.parametrize(
    "artifact",
    [
        tree([file("a")], length=6),
        tree([file("a")], chunks=[row(4)]),
        tree([file("a"), file("b", 6)]),
        tree([file("a"), file("b", 4)]),
        tree([file("a"), file("a", 5)]),
        tree([file("a")], {"a": "b"}),
        tree([file("a"), file("a/b", 5)]),
        tree([file("a/b")], {"a": "elsewhere"}),
        tree([file("../a")]),
        tree([file("/a")]),
        tree([file("a")], {"b": "/etc/passwd"}),
        tree([file("a")], {"b/c": "../../x"}),
        tree([file("a")], chunks=[row(5, 0)]),
        tree([file("a", 0, MAX_CHUNK_BYTES + 1)]),
        tree([{**file("a"), "mode": 0o4755}]),
        tree([], kind="file", name="../x", length=5, chunks=[row()]),
        tree([], kind="file", length=5, chunks=[row()]),
        tree([file("a")], kind="device"),
    ],
    ids=[
        "length", "chunks", "gap", "overlap", "twice", "file and link", "below a file", "below a link", "climbs",
        "absolute", "absolute link", "climbing link", "empty body", "huge chunk", "setuid", "bad name", "no name",
        "kind",
    ],
)  # fmt: skip
def test_what_does_not_add_up_is_refused(artifact: dict[str, Any]) -> None:
    """An artifact whose figures or paths contradict each other is not read, and the field is named."""
    data = {"product": "gateway", "version": "1.1.0", "artifacts": [artifact]}
    with pytest.raises(ContentError, match="manifest artifacts") as caught:
        Manifest.from_json(json.dumps(data).encode())
    assert caught.value.code is ErrorCode.FORMAT


def test_a_manifest_beyond_its_cap_is_not_parsed() -> None:
    """The length is looked at first."""
    with pytest.raises(ContentError) as caught:
        Manifest.from_json(b" " * (MAX_MANIFEST_BYTES + 1))
    assert caught.value.code is ErrorCode.OVERSIZE


def test_an_unknown_version_is_refused_and_unknown_fields_are_not() -> None:
    """A newer minor version may add fields; another major is another format."""
    manifest = Manifest(product="gateway", version="1", artifacts=[Artifact.model_validate(tree([file("a")]))])
    data = json.loads(manifest.to_json())
    assert Manifest.from_json(json.dumps({**data, "later": 1}).encode()) == manifest
    with pytest.raises(ContentError) as caught:
        Manifest.from_json(json.dumps({**data, "v": 2}).encode())
    assert caught.value.code is ErrorCode.FORMAT


@given(st.binary(max_size=100))
def test_no_bytes_make_reading_fail_in_another_way(data: bytes) -> None:
    """Any bytes are a manifest or a ContentError."""
    with pytest.raises(ContentError):
        Manifest.from_json(data)


@pytest.mark.parametrize(
    "path", ["", ".", "..", "/", "/a", "a/", "a//b", "./a", "a/./b", "a/../b", "../a", "a\0b", "a" * 1025], ids=repr
)
def test_a_path_has_one_normal_form_inside_the_tree(path: str) -> None:
    """What climbs, is absolute, or has a second spelling is refused."""
    with pytest.raises(ValueError, match="relative path inside"):
        check_member(path)


@given(st.text(min_size=1, max_size=40))
def test_an_accepted_path_never_leaves_the_tree(path: str) -> None:
    """Whatever the text, an accepted path has only plain parts."""
    try:
        check_member(path)
    except ValueError:
        return
    assert not path.startswith("/")
    assert not set(path.split("/")) & {"", ".", ".."}


@pytest.mark.parametrize(("path", "target"), [("a", "b"), ("a/b", "../c"), ("a/b/c", "../../d"), ("a/b", "./c")])
def test_a_link_inside_the_tree_is_kept(path: str, target: str) -> None:
    """A relative target that stays below the root is accepted."""
    assert check_link(path, target) == target


@pytest.mark.parametrize(
    ("path", "target"), [("a", ".."), ("a", "../a"), ("a/b", "../../c"), ("a", "/b"), ("a", ""), ("a/b", "../../a/b")]
)
def test_a_link_out_of_the_tree_is_refused(path: str, target: str) -> None:
    """A target that climbs above the root at any step is refused, also if it comes back."""
    with pytest.raises(ValueError, match="link"):
        check_link(path, target)


@pytest.mark.parametrize(
    "changes",
    [{"v": 2}, {"product": "a/b"}, {"hardware": []}, {"counter": -1}, {"pieces": []}, {"pieces": ["xy"]},
     {"pieces": [HEX] * 1025}, {"profile": "small"}],
    ids=str,
)  # fmt: skip
def test_a_bad_custom_part_is_refused(changes: dict[str, Any]) -> None:
    """What is judged before any key is used is within its bounds."""
    good: dict[str, Any] = {
        "product": "gateway", "version": "1.1.0", "component": "app", "hardware": ["rev-a"], "counter": 0,
        "space_bytes": 1, "pieces": [HEX], "chunk_count": 1,
    }  # fmt: skip
    assert ReleaseInfo.model_validate(good).profile == "linux"
    with pytest.raises(ValidationError):
        ReleaseInfo.model_validate({**good, **changes})


OTHER = base64.b64encode(b"\2" * 32).decode()


def delta(index: int = 0, **changes: Any) -> tuple[Any, ...]:
    """A row of a set of deltas."""
    values = {"cid": OTHER, "key": OTHER, "body": 3, "offset": 10, "length": 20, "sha256": OTHER} | changes
    return (index, *values.values())


def with_deltas(*sets: tuple[str, int, list[tuple[Any, ...]]]) -> dict[str, Any]:
    """An artifact of two chunks with sets of (base's sha256, base's length, rows)."""
    deltas = [{"sha256": sha256, "length": length, "rows": rows} for sha256, length, rows in sets]
    return tree([file("a"), file("b", 5)], deltas=deltas)


def test_deltas_read_back_and_say_nothing_where_there_are_none() -> None:
    """Sets of deltas survive JSON; a manifest without any has the bytes that it always had."""
    plain = Artifact.model_validate(tree([file("a"), file("b", 5)]))
    assert "deltas" not in plain.model_dump(mode="json")
    artifact = Artifact.model_validate(with_deltas((HEX, 100, [delta(0), delta(1)])))
    manifest = Manifest(product="gateway", version="1.1.0", artifacts=[artifact])
    assert Manifest.from_json(manifest.to_json()) == manifest
    (index, first), _ = artifact.deltas[0].delta_refs()
    assert index == 0
    assert (first.cid, first.body_length, first.base_offset, first.base_length) == (b"\2" * 32, 3, 10, 20)


@pytest.mark.parametrize(
    ("sets", "why"),
    [
        ([(HEX, 100, [delta(2)])], "there is not"),
        ([(HEX, 100, [delta(-1)])], "at most once"),
        ([(HEX, 100, [delta(1), delta(0)])], "at most once"),
        ([(HEX, 100, [delta(0), delta(0)])], "at most once"),
        ([(HEX, 100, [delta()]), (HEX, 100, [])], "one base"),
        ([(HEX, 29, [delta()])], "base is out of bounds"),
        ([(HEX, 100, [delta(offset=-1)])], "base is out of bounds"),
        ([(HEX, 100, [delta(length=7)])], "base is out of bounds"),
        ([(HEX, 2**30, [delta(length=MAX_BASE_BYTES + 1)])], "base is out of bounds"),
        ([(HEX, 100, [delta(body=0)])], "length is out of bounds"),
        ([(HEX, 100, [delta(body=MAX_CHUNK_BYTES + 1)])], "length is out of bounds"),
        ([(HEX, 100, [delta(cid=B64)])], "id of a chunk"),
        ([(f"{n:064x}", 100, []) for n in range(MAX_BASES + 1)], "at most 8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_deltas_have_bounds(sets: list[Any], why: str) -> None:
    """What a device would have to trust, search or hold in memory is bounded where the manifest is read."""
    with pytest.raises(ValidationError, match=why):
        Artifact.model_validate(with_deltas(*sets))


def test_a_chunk_is_never_a_delta_only() -> None:
    """A device without the former stream must be able to fetch every chunk."""
    with pytest.raises(ValidationError, match="delta only"):
        Artifact.model_validate(tree([file("a")], chunks=[(B64, B64, B64, "zd", 5, 5)]))
