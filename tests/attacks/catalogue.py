"""The named attacks: what each is called, what must answer it, and which test holds it. Nothing is listed without one.

``docs/reference/attacks.md`` is written from here: ``python -m tests.attacks.catalogue``.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tests.attacks

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "attacks.md"
IDS = tuple(
    f"{letter}{number}"
    for letter, count in (
        ("A", 10), ("R", 10), ("F", 7), ("W", 1), ("M", 4), ("B", 2), ("X", 5), ("S", 1), ("D", 8), ("K", 6), ("E", 5),
        ("I", 4), ("N", 6), ("O", 10),
    )
    for number in range(1, count + 1)
)  # fmt: skip
"""All of them, in the order of the page."""
FAMILIES = {
    "A": "Software or orders that nobody with the right keys signed",
    "R": "Rollback: what was valid once",
    "F": "Freeze and withholding: what is valid no more, or never comes",
    "W": "Fast-forward",
    "M": "Mix and match",
    "B": "Parts and power cuts",
    "X": "Endless and malformed input",
    "S": "Slow retrieval",
    "D": "A stolen director",
    "K": "Revoked and rotated keys",
    "E": "Encryption",
    "I": "After extraction and installing",
    "N": "The channel",
    "O": "Offline: a medium in foreign hands",
}
T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack as a test declares it.

    Attributes:
        answer: The error code, or what is done where no code is due.
        says: The test's docstring in one line.
    """

    id: str
    answer: str
    test: str
    says: str


def attack(name: str, answer: str) -> Callable[[T], T]:
    """Declare that a test is the one of a named attack."""
    if name not in IDS:
        raise ValueError(f"{name}: not one of the named attacks")

    def declare(test: T) -> T:
        if not test.__name__.startswith(f"test_{name.lower()}_"):
            raise ValueError(f"{test.__name__}: expected a name that begins with test_{name.lower()}_")
        test.__attack__ = (name, answer)  # type: ignore[attr-defined]
        return test

    return declare


def declared() -> list[Attack]:
    """Every attack that has a test, in the order of the page.

    Raises:
        ValueError: Two tests claim one attack.
    """
    found: dict[str, Attack] = {}
    for module in pkgutil.iter_modules(tests.attacks.__path__):
        if not module.name.startswith("test_"):
            continue
        for name, test in inspect.getmembers(importlib.import_module(f"tests.attacks.{module.name}")):
            if hasattr(test, "__attack__"):
                key, answer = test.__attack__
                if key in found:
                    raise ValueError(f"{key}: {found[key].test} and {name} both claim it")
                says = " ".join((inspect.getdoc(test) or "").split())
                found[key] = Attack(key, answer, f"tests/attacks/{module.name}.py::{name}", says)
    return [found[name] for name in IDS if name in found]


def page() -> str:
    """The reference page."""
    attacks = declared()
    lines = [
        "# Named attacks and what answers them",
        "",
        f"Written from the tests by `python -m tests.attacks.catalogue`: {len(attacks)} attacks, each with a test that",
        "asserts the answer, that the operator sees it in `flagship device explain`, and that the device runs what it",
        "ran. A device that has no link (O) says it in `flagship-device status`, and to the operator when it has one.",
    ]
    for letter, family in FAMILIES.items():
        rows = [one for one in attacks if one.id.startswith(letter)]
        if rows:
            lines += ["", f"## {letter}: {family}", "", "| id | attack | answer | test |", "|---|---|---|---|"]
            lines += [f"| {one.id} | {one.says} | {one.answer} | `{one.test}` |" for one in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page())
