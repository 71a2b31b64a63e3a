"""What holds for the project as a whole: locks, layout, and what a plain install brings along."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("protocol", "orchestrator", "device_client")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 300
NOT_ON_A_DEVICE = (
    "sqlalchemy", "aiosqlite", "alembic", "fastapi", "starlette", "uvicorn", "httpx", "typer", "rich", "click",
    "pydantic_settings", "prometheus_client", "pyfastcdc", "yaml", "anyio",
)  # fmt: skip
NO_ROOM = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
HOSTS = re.compile(r"pypi\.org|pythonhosted|--(extra-)?index-url|--find-links|--trusted-host", re.IGNORECASE)


def _documents() -> list[Path]:
    texts = [*ROOT.glob("*.md"), *ROOT.glob("*.toml"), *(ROOT / "requirements").glob("*"), ROOT / "Makefile"]
    return texts + [path for path in (ROOT / "docs").rglob("*") if path.is_file()]


@pytest.mark.parametrize("path", _documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_names_a_registry(path: Path) -> None:
    """Where packages come from is each user's configuration; hashes make the source untrusted anyway."""
    # The Makefile's own check of the locks has to spell out what it looks for.
    text = "".join(line for line in path.read_text().splitlines(True) if "grep -nE" not in line)
    assert not HOSTS.findall(text)


@pytest.mark.parametrize("name", ["device", "orchestrator", "dev"])
def test_every_locked_package_has_hashes_and_no_url(name: str) -> None:
    """A lock pins each package to exact versions and bytes, and to no place."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    entries = re.split(r"\n(?=\S)", "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")))
    assert entries
    assert all("==" in entry and "--hash=sha256:" in entry for entry in entries if entry.strip())
    assert "://" not in text


def _pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", (ROOT / "requirements" / f"{name}.txt").read_text(), re.MULTILINE))


def test_the_locks_agree() -> None:
    """A device, an orchestrator and a developer run the same version of what they share."""
    largest = _pins("dev")
    for name in ("device", "orchestrator"):
        pins = _pins(name)
        assert pins.items() <= largest.items()
    assert not set(NOT_ON_A_DEVICE) & set(_pins("device"))


def test_every_direct_dependency_is_locked() -> None:
    """Nothing that the project asks for is missing from the lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {re.split(r"[\[<>=;~! ]", text)[0].replace(".", "-") for text in wanted} - {"flagship"}
    assert names <= {name.replace(".", "-") for name in _pins("dev")}


def test_a_plain_install_is_a_device() -> None:
    """The device's command line starts where only a device's packages are installed."""
    # structlog imports rich where it is there; so what a device lacks is made impossible to import.
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({NOT_ON_A_DEVICE!r}))\n"
        "import device_client.cli, device_client.service\n"
        "print([name for name in sys.modules if name.startswith('orchestrator')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_one_room(path: Path) -> None:
    """A module is named for what it holds, says so in its docstring, and is short enough to be read at once."""
    assert path.stem not in NO_ROOM
    assert path.parent.name not in NO_ROOM
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_left_for_later(path: Path) -> None:
    """No stub is in the code: what is not there is not announced."""
    assert not re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", path.read_text())


def test_the_virtual_environment_is_not_tracked() -> None:
    """A clone makes its own; one from another machine would point to an interpreter that is not there."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    done = subprocess.run(
        ["git", "ls-files", ".venv", "*.pyc", "uv.lock"], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.stdout == ""
