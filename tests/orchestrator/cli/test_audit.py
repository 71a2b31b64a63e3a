"""``flagship audit``: a home that nothing serves is verified; what hands did to its file shows."""

import asyncio
import json
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main
from orchestrator.config import Home
from orchestrator.model.audit import FIRST, AuditEntry, chain_hash, encode_entry, pack
from orchestrator.rollouts.anchoring import Anchor
from orchestrator.signer.signer import Signer
from orchestrator.storage.audit_file import open_log
from orchestrator.storage.database import Database
from protocol.states import State
from tests.orchestrator.cli.conftest import RELEASE, Run, ask
from tests.orchestrator.cli.homes import make_home
from tests.orchestrator.rollouts import ordering
from tests.orchestrator.rollouts.yard import Yard, plan

Hand = Callable[[sqlite3.Connection], object]
TRIGGERS = ("audit_no_update", "audit_no_delete", "audit_in_order", "audit_heads_no_update", "audit_heads_no_delete")
ANCHORED = 8
"""How many entries stand before the signed head, at least."""


async def play(home: Home) -> None:
    """A rollout that halts by its rule; its end is signed twice, and something stands behind that."""
    db = await Database.open(home.database)
    signer = Signer.open(home, home.load())
    try:
        yard = Yard(db)
        await db.take_lead(yard.clock.now())
        anchor = Anchor(db, signer, yard.clock, 3600)
        await yard.add_release()
        await yard.add_devices(["d1", "d2", "d3"])
        rollout = await yard.run(plan(halt_min_sample=1))
        await yard.look()
        for device in ("d1", "d2"):
            await yard.ready(rollout, device)
        await yard.look()
        await anchor.sign()
        await yard.report(rollout, "d1", State.FAILED)
        await yard.look()
        await anchor.sign()
        await ordering.resume(db, yard.clock, rollout, "looked at it")
    finally:
        signer.close()
        await db.close()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The home as it was written."""
    home = make_home(tmp_path_factory.mktemp("audit") / "home")
    asyncio.run(play(home))
    return home


@pytest.fixture
def home(played: Home, tmp_path: Path) -> Home:
    """A copy of it, to lay hands on."""
    shutil.copytree(played.path, tmp_path / "home")
    return Home(tmp_path / "home")


def verify(capsys: pytest.CaptureFixture[str], home: Home, *words: object) -> tuple[int, dict[str, Any]]:
    """The exit code and what JSON says."""
    code = main(["audit", "verify", "--home", str(home.path), "-o", "json", *map(str, words)])
    said = capsys.readouterr()
    assert said.out, said.err
    return code, json.loads(said.out)


def by_hand(home: Home, hand: Hand) -> None:
    """Change the file as somebody does who has it."""
    with closing(sqlite3.connect(home.database)) as conn:
        for trigger in TRIGGERS:
            conn.execute(f"DROP TRIGGER {trigger}")
        hand(conn)
        conn.commit()


def write_anew(conn: sqlite3.Connection, home: Home) -> None:
    """Change an entry, and hash everything anew: the chain is whole afterwards."""
    with open_log(home.database) as log:
        entries = [entry for entry, _ in log.entries()]
    former = FIRST
    for entry in entries:
        actor = "nobody" if entry.id == 4 else entry.actor
        changed = AuditEntry(**{**{n: getattr(entry, n) for n in entry.__slots__}, "actor": actor})
        former = chain_hash(former, encode_entry(changed))
        conn.execute("UPDATE audit SET actor = ?, hash = ? WHERE id = ?", (actor, former, entry.id))


def test_what_was_written_holds(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    """With figures of what was looked at, and the head to be noted elsewhere; nothing is written by looking."""
    before = home.database.read_bytes()
    code, found = verify(capsys, home)
    assert (code, found["problems"]) == (0, [])
    assert found["heads"] == 2 and found["claims"] >= 2 and ANCHORED < found["anchored"] < found["last"]
    assert found["decisions"] >= 3 and found["counters"] >= 2 and found["other_versions"] == 0
    assert verify(capsys, home, "--rollout", "r-1", "--expect", f"{found['last']}:{found['hash']}")[0] == 0
    assert main(["audit", "verify", "--home", str(home.path)]) == 0
    said = capsys.readouterr().out
    assert f"the last is {found['last']}:{found['hash']}" in said and "2 signed by the fleet's director" in said
    assert home.database.read_bytes() == before


def turned(body: bytes) -> bytes:
    """One byte of an entry's figures is another."""
    return pack(zlib.decompress(body).replace(b'"verb":"start"', b'"verb":"stare"'))


def swap(conn: sqlite3.Connection) -> None:
    """Two entries in one another's place."""
    for old, new in ((4, -1), (5, 4), (-1, 5)):
        conn.execute("UPDATE audit SET id = ? WHERE id = ?", (new, old))


def change_a_byte(conn: sqlite3.Connection) -> None:
    """In the figures of an order."""
    for number, body in conn.execute("SELECT id, body FROM audit WHERE kind = 'order'").fetchall():
        conn.execute("UPDATE audit SET body = ? WHERE id = ?", (turned(body), number))


HANDS: dict[str, tuple[Hand, str]] = {
    "a byte of the figures": (change_a_byte, "does not follow from entry"),
    "an actor": (lambda c: c.execute("UPDATE audit SET actor = 'eve' WHERE id = 4"), "entry was changed"),
    "an instant": (lambda c: c.execute("UPDATE audit SET at = 'yesterday' WHERE id = 4"), "changed after it was"),
    "a body": (lambda c: c.execute("UPDATE audit SET body = x'0011' WHERE id = 4"), "does not unpack"),
    "deleted": (lambda c: c.execute("DELETE FROM audit WHERE id = 4"), "missing 4;"),
    "the first deleted": (lambda c: c.execute("DELETE FROM audit WHERE id = 1"), "missing 1;"),
    "swapped": (swap, "changed or moved"),
    "the end cut off": (lambda c: c.execute(f"DELETE FROM audit WHERE id > {ANCHORED}"), "the log ends at"),
    "a counter": (lambda c: c.execute("UPDATE counts SET n = n + 1 WHERE key = 'state:failed'"), "state:failed"),
    "a counter added": (lambda c: c.execute("INSERT INTO counts VALUES ('r-7', 0, 'ready', 1)"), "rollout r-7"),
    "a head's signature": (lambda c: c.execute("UPDATE audit_heads SET envelope = x'7b7d'"), "not the signer's"),
}  # fmt: skip


@pytest.mark.parametrize(("hand", "sentence"), HANDS.values(), ids=HANDS)
def test_every_hand_on_the_file_shows(
    capsys: pytest.CaptureFixture[str], home: Home, hand: Hand, sentence: str
) -> None:
    """Exit code 1, where it shows and what it means."""
    by_hand(home, hand)
    code, found = verify(capsys, home)
    assert code == 1 and found["problem_count"] >= 1
    assert any(sentence in problem["text"] for problem in found["problems"]), found["problems"]


def test_a_log_that_was_hashed_anew_shows_by_the_signed_head(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    """The chain is whole; the director's signature says otherwise."""
    by_hand(home, lambda conn: write_anew(conn, home))
    code, found = verify(capsys, home)
    assert code == 1
    assert all("written anew" in problem["text"] for problem in found["problems"])
    assert any(problem["text"].startswith("the head signed at") for problem in found["problems"])


def test_it_shows_by_the_signer_and_by_notes_when_heads_are_gone(
    capsys: pytest.CaptureFixture[str], home: Home
) -> None:
    """The signer remembers the last one; where its folder is not here, a hash that somebody noted does."""
    noted = verify(capsys, home)[1]

    def hand(conn: sqlite3.Connection) -> None:
        write_anew(conn, home)
        conn.execute("DELETE FROM audit_heads")

    by_hand(home, hand)
    code, found = verify(capsys, home)
    assert code == 1 and ["the signer's memory" in p["text"] for p in found["problems"]] == [True]
    (home.signer / "facts.json").unlink()
    assert verify(capsys, home)[0] == 0, "nothing is left that could tell"
    code, found = verify(capsys, home, "--expect", f"{noted['last']}:{noted['hash']}")
    assert code == 1 and "--expect" in found["problems"][0]["text"]


def test_heads_are_judged_by_what_the_offline_keys_listed(
    capsys: pytest.CaptureFixture[str], home: Home, tmp_path: Path
) -> None:
    """From a root that was kept elsewhere; one of another fleet's does not vouch for this folder."""
    root = home.trust / "1.root.json"
    assert verify(capsys, home, "--root", root)[0] == 0
    other = make_home(tmp_path / "other")
    assert main(["audit", "verify", "--home", str(home.path), "--root", str(other.trust / "1.root.json")]) == 1
    assert "restore it" in capsys.readouterr().err
    shutil.rmtree(home.trust)
    shutil.copytree(other.trust, home.trust)
    code, found = verify(capsys, home)
    assert code == 1 and "not the signer's" in found["problems"][0]["text"]


def test_many_problems_are_counted(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    """The first ones are printed; what they hold of the file is never sent to the terminal as it is."""
    rows = ", ".join(f"('r-\x1b{n}', 0, 'ready', 1)" for n in range(30))
    by_hand(home, lambda conn: conn.execute(f"INSERT INTO counts VALUES {rows}"))
    assert main(["audit", "verify", "--home", str(home.path)]) == 1
    said = capsys.readouterr().out
    assert "and 10 more" in said and "\x1b" not in said and said.count("FAIL") == 21


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--expect", "7"], 2, "expected ENTRY:HASH"),
        (["--root", "nowhere.json"], 1, "cannot be read"),
    ],
)
def test_wrong_words(
    capsys: pytest.CaptureFixture[str], home: Home, words: list[str], code: int, sentence: str
) -> None:
    """One sentence."""
    assert main(["audit", "verify", "--home", str(home.path), *words]) == code
    assert sentence in capsys.readouterr().err


def test_files_that_are_no_log(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    """A database that is missing, older than the log, or junk."""
    home.database.unlink()
    assert main(["audit", "verify", "--home", str(home.path)]) == 3
    sqlite3.connect(home.database).execute("CREATE TABLE settings (key, value)").connection.close()
    assert main(["audit", "verify", "--home", str(home.path)]) == 3
    home.database.write_bytes(b"junk" * 1000)
    assert main(["audit", "verify", "--home", str(home.path)]) == 1
    missing, older, junk = capsys.readouterr().err.splitlines()
    assert "missing" in missing and "no audit log yet" in older and "cannot be read" in junk


def test_a_served_home(run: Run, served: Home) -> None:
    """Orders through the API stand in the log with their figures; it is verified while serve writes it."""
    rollout = ask(run, "rollout", "create", "--release", RELEASE, "--group", "canary")["id"]
    ask(run, "rollout", "abort", rollout, "--reason", "only for the log")
    code, out, _ = run("audit", "tail", "--rollout", rollout, "-o", "json")
    entries = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    orders = [entry for entry in entries if entry["kind"] == "order"]
    assert [(e["actor"], e["cause"].split(":")[0]) for e in orders] == [
        ("admin", "created"),
        ("admin", "aborted"),
    ]
    shown = ask(run, "audit", "show", orders[1]["id"])
    assert (shown["figures"]["verb"], shown["figures"]["reason"]) == ("abort", "only for the log")
    assert shown["epoch"] >= 1 and shown["correlation"] and shown["hash"] == orders[1]["hash"]
    found = ask(run, "audit", "verify")
    assert found["problems"] == [] and found["last"] >= entries[-1]["id"]
    code, out, _ = run("audit", "tail", "-n", 1)
    assert code == 0 and len(out.splitlines()) == 1
    assert run("audit", "show", 10**9)[0] == 3
