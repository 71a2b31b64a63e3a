"""Whether a release can be reached at all: its needs among the published releases must not lead back to it. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from orchestrator.errors import ConflictError
from orchestrator.rollouts.members import Compare
from protocol.manifest import ReleaseInfo


class Need(NamedTuple):
    """What must be there before a release: said in words, and the release that brings it."""

    words: str
    release: ReleaseInfo


_Chain = list[tuple[ReleaseInfo, str]]
"""Releases, each with what it needs of the next one."""


def check_needs(target: ReleaseInfo, published: Iterable[ReleaseInfo], compare: Compare) -> None:
    """Look for a circle among what a release needs: no device could ever go round it.

    Args:
        target: The release that is to be rolled out.
        published: Every published release of its product.
        compare: Order of versions.

    Raises:
        ConflictError: There is one; names it link by link.
    """
    known = {_name(release): release for release in (*published, target)}
    chain = _find_circle(target, list(known.values()), compare)
    if chain is None:
        return
    links = ", which ".join(f"needs {words}" for _, words in chain)
    raise ConflictError(
        f"release {_name(target)}: can never be installed: {_name(chain[0][0])} {links}; "
        "publish a release that breaks this circle"
    )


def _find_circle(target: ReleaseInfo, known: Sequence[ReleaseInfo], compare: Compare) -> _Chain | None:
    """Depth first, without recursion: a chain may be as long as there are releases."""
    path: list[tuple[ReleaseInfo, Iterator[Need]]] = [(target, _needs(target, known, compare))]
    words: list[str] = []
    on_path, done = {_name(target)}, set[str]()
    while path:
        release, needs = path[-1]
        need = next(needs, None)
        if need is None:
            path.pop()
            words = words[: max(0, len(path) - 1)]
            on_path.discard(_name(release))
            done.add(_name(release))
            continue
        name = _name(need.release)
        if name in done:
            continue
        words.append(f"{need.words} ({name})" if name not in on_path else f"{need.words} ({name} again)")
        if name in on_path:
            return [(step, said) for (step, _), said in zip(path, words, strict=True)]
        path.append((need.release, _needs(need.release, known, compare)))
        on_path.add(name)
    return None


def _needs(release: ReleaseInfo, known: Sequence[ReleaseInfo], compare: Compare) -> Iterator[Need]:
    for component, version in release.requires.items():
        for other in known:
            if (other.component, other.version) == (component, version) and _share_hardware(release, other):
                yield Need(f"{component} {version}", other)
    for other in known:
        if (
            other.must_pass_through
            and other.component == release.component
            and _share_hardware(release, other)
            and compare(other.version, release.version) < 0
        ):
            yield Need(f"to pass through {other.component} {other.version}", other)


def _share_hardware(one: ReleaseInfo, other: ReleaseInfo) -> bool:
    return not set(one.hardware).isdisjoint(other.hardware)


def _name(info: ReleaseInfo) -> str:
    return f"{info.product}/{info.version}"
