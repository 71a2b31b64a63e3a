"""Real version pairs: files and images of Debian's packages in the two newest versions that apt knows.

What was downloaded stays in a cache folder. Images hold the same packages twice, and in the second the packages of
Python are newer; everything else about them is fixed, so that they differ in nothing else.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PYTHON = ("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib")
LIBRARY = "libnode108"
KERNEL = "linux-image-cloud-amd64"
FIXED = "11111111-2222-3333-4444-555555555555"
EPOCH = 1_700_000_000
SIZE = "144M"
"""Of an image; its files are about 100 MB."""
TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Two versions of one file.

    Attributes:
        is_image: Of many files; otherwise one.
        versions: As Debian names them.
    """

    name: str
    old: Path
    new: Path
    is_image: bool
    versions: tuple[str, str]


def make_pairs(cache: Path, place: Path) -> list[Pair]:
    """Download, unpack and build. Blocking.

    Raises:
        RuntimeError: apt knows one version only.
    """
    cache.mkdir(parents=True, exist_ok=True)
    pairs = [
        _file(cache, place, "python3.11", PYTHON[0], "usr/bin/python3.11"),
        _file(cache, place, "libnode.so.108", LIBRARY, "usr/lib/*/libnode.so.108"),
        _kernel(cache, place),
    ]
    return [*pairs, *_images(cache, place)]


def two_versions(package: str) -> tuple[str, str]:
    """The newest but one, and the newest."""
    rows = [line.split("|")[1].strip() for line in _run("apt-cache", "madison", package).splitlines()]
    found = sorted(set(rows), key=functools.cmp_to_key(_compare))
    if len(found) < 2:
        raise RuntimeError(f"{package}: expected two versions in apt's lists, found {found}; run apt-get update")
    return found[-2], found[-1]


def _file(cache: Path, place: Path, name: str, package: str, pattern: str) -> Pair:
    versions = two_versions(package)
    paths = [
        _one(_unpacked(cache, [(package, version)], place / f"{name}-{which}"), pattern)
        for which, version in zip(("old", "new"), versions, strict=True)
    ]
    return Pair(name, paths[0], paths[1], is_image=False, versions=versions)


def _kernel(cache: Path, place: Path) -> Pair:
    versions = two_versions(KERNEL)
    paths = []
    for which, version in zip(("old", "new"), versions, strict=True):
        lines = _run("apt-cache", "depends", f"{KERNEL}={version}").splitlines()
        (package,) = {line.split()[-1] for line in lines if "linux-image-" in line and "Depends:" in line}
        paths.append(_one(_unpacked(cache, [(package, version)], place / f"kernel-{which}"), "boot/vmlinuz-*"))
    return Pair("kernel image", paths[0], paths[1], is_image=False, versions=versions)


def _images(cache: Path, place: Path) -> list[Pair]:
    pairs = {package: two_versions(package) for package in PYTHON}
    still = [(package, two_versions(package)[0]) for package in (LIBRARY, "openssl", "libssl3")]
    trees = [
        _unpacked(cache, [*still, *((name, both[which]) for name, both in pairs.items())], place / f"tree-{which}")
        for which in (0, 1)
    ]
    for tree in trees:
        for path in (tree, *tree.rglob("*")):
            os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    found = []
    for name, words in (("ext4 image", ()), ("ext4 image, 4 KiB blocks", ("-b", "4096"))):
        files = [place / f"{name.replace(' ', '-')}-{which}.ext4" for which in ("old", "new")]
        for file, tree in zip(files, trees, strict=True):
            _make_ext4(file, tree, words)
        found.append(Pair(name, files[0], files[1], is_image=True, versions=pairs[PYTHON[0]]))
    return found


def _make_ext4(file: Path, tree: Path, words: Sequence[str]) -> None:
    options = ("-q", "-F", "-d", str(tree), "-U", FIXED, "-E", f"hash_seed={FIXED},root_owner=0:0", *words)
    program = shutil.which("mkfs.ext4", path=os.environ["PATH"] + ":/usr/sbin:/sbin") or "mkfs.ext4"
    _run(program, *options, str(file), SIZE, env={"E2FSPROGS_FAKE_TIME": str(EPOCH)})


def _unpacked(cache: Path, packages: Sequence[tuple[str, str]], target: Path) -> Path:
    target.mkdir(parents=True)
    for package, version in packages:
        archive = cache / f"{package}_{version.replace(':', '%3a')}_amd64.deb"
        if not archive.exists():
            _run("apt-get", "download", "-q", f"{package}={version}", cwd=cache)
            (found,) = cache.glob(f"{package}_*{version.rpartition(':')[2]}_*.deb")
            if found != archive:
                found.rename(archive)
        _run("dpkg-deb", "-x", str(archive), str(target))
    return target


def _one(tree: Path, pattern: str) -> Path:
    (found,) = tree.glob(pattern)
    return found


def _compare(a: str, b: str) -> int:
    if a == b:
        return 0
    return -1 if subprocess.run(["dpkg", "--compare-versions", a, "lt", b], check=False).returncode == 0 else 1


def _run(*words: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        words,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[:3])} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout
