"""The log of a real rollout, verified in one pass, and after hands were laid on it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.model.audit import AuditEntry, Head, Problem, chain_hash, encode_body, encode_entry
from orchestrator.rollouts.verifying import Checked, Claim, Verification
from orchestrator.storage import assignments, audit
from protocol.states import State
from tests.orchestrator.rollouts import ordering
from tests.orchestrator.rollouts.yard import Yard, plan

Counts = dict[str, dict[int, dict[str, int]]]


@pytest.fixture
async def log(yard: Yard) -> AsyncIterator[tuple[list[AuditEntry], Counts]]:
    """A rollout of four devices: one succeeds, one fails, which halts it; a person goes on, and ends it."""
    await yard.add_devices(["d1", "d2", "d3", "d4"])
    rollout = await yard.run(plan(halt_min_sample=1, halt_ratio=0.3))
    await yard.look()
    for device in ("d1", "d2"):
        await yard.ready(rollout, device)
    await yard.look()
    await yard.report(rollout, "d1", State.SUCCEEDED)
    await yard.look()
    await yard.report(rollout, "d2", State.FAILED)
    await yard.look()
    await ordering.resume(yard.db, yard.clock, rollout, "looked at it", actor="ann")
    await yard.look()
    await ordering.abort(yard.db, yard.clock, rollout, barrier=nothing)
    await yard.look()
    async with yard.db.read() as conn:
        entries = await audit.page(conn, limit=1000)
        yield entries, {rollout: await assignments.load_counts(conn, rollout)}


async def nothing() -> None:
    """No delivery, no sends in flight."""


def verify(
    entries: Sequence[AuditEntry], counts: Counts, claims: Sequence[Claim] = (), rollout: str = ""
) -> tuple[list[Problem], Checked]:
    """One pass."""
    verification = Verification(claims, rollout)
    problems = [problem for entry in entries for problem in verification.see(entry)]
    return [*problems, *verification.finish(counts)], verification.checked


def change(entries: Sequence[AuditEntry], number: int, **changes: Any) -> list[AuditEntry]:
    """The log with one entry changed, and every hash made anew from there: consistent in itself."""
    made: list[AuditEntry] = []
    for entry in entries:
        changed = replace(entry, **(changes if entry.id == number else {}))
        former = made[-1].head if made else Head()
        made.append(replace(changed, hash=chain_hash(former.hash, encode_entry(changed))))
    return made


def of_kind(entries: Sequence[AuditEntry], kind: str) -> list[AuditEntry]:
    """Those of one kind."""
    return [entry for entry in entries if entry.kind == kind]


def test_what_was_written_holds(log: tuple[list[AuditEntry], Counts]) -> None:
    """Orders with who and why, decisions that are made again, counters that come to the same."""
    entries, counts = log
    problems, checked = verify(entries, counts, [Claim(entries[-1].id, entries[-1].hash, "somebody")])
    assert problems == []
    decisions = of_kind(entries, "decision")
    assert (checked.entries, checked.decisions, checked.claims) == (len(entries), len(decisions), 1)
    assert len(decisions) >= 4 and checked.counters and checked.moves == len(of_kind(entries, "moves"))
    assert [(e.actor, e.figures()["verb"], e.figures()["state"]) for e in of_kind(entries, "order")] == [
        ("operator", "create", "draft"), ("operator", "start", "running"), ("ann", "resume", "running"),
        ("operator", "abort", "aborted"),
    ]  # fmt: skip
    assert any("halted by rule" in entry.cause for entry in decisions)


def test_an_order_and_its_moves_belong_together(log: tuple[list[AuditEntry], Counts]) -> None:
    """One correlation id, actor and cause; a report's moves say that devices reported."""
    entries, _ = log
    decision = next(e for e in of_kind(entries, "decision") if "are offered" in e.cause)
    moved = [e for e in of_kind(entries, "moves") if e.correlation == decision.correlation]
    assert [(e.actor, e.cause) for e in moved] == [("engine", decision.cause)]
    assert {e.actor for e in of_kind(entries, "moves")} == {"engine", "devices"}


def test_a_changed_counter_shows(log: tuple[list[AuditEntry], Counts]) -> None:
    """By rollout, stage and key; not when another rollout is asked for."""
    entries, counts = log
    (rollout,) = counts
    counts[rollout][0]["state:failed"] += 1
    problems, _ = verify(entries, counts)
    assert [p.entry for p in problems] == [0]
    assert f"rollout {rollout}: stage 0, state:failed: the log comes to 1, found 2" in problems[0].text
    assert verify(entries, counts, rollout="r-9")[0] == []


def test_a_forgotten_move_shows_though_the_chain_is_whole(log: tuple[list[AuditEntry], Counts]) -> None:
    """At the next decision, which was told other counters, and at the end."""
    entries, counts = log
    moves = next(e for e in of_kind(entries, "moves") if "failed" in e.body.decode())
    problems, _ = verify(change(entries, moves.id, body=encode_body({"moves": []})), counts)
    assert any(p.entry > moves.id and "told other counters" in p.text for p in problems)
    assert any(p.entry == 0 and "state:failed" in p.text for p in problems)


def test_another_decision_shows_though_the_chain_is_whole(log: tuple[list[AuditEntry], Counts]) -> None:
    """The engine comes to something else on the entry's own facts."""
    entries, counts = log
    halted = next(e for e in of_kind(entries, "decision") if "halted by rule" in e.cause)
    figures = halted.figures()
    figures["decisions"]["happenings"] = []
    problems, _ = verify(change(entries, halted.id, body=encode_body(figures)), counts)
    assert [(p.entry, "happenings" in p.text) for p in problems] == [(halted.id, True)]


def test_a_log_that_was_written_anew_shows_by_what_was_signed(log: tuple[list[AuditEntry], Counts]) -> None:
    """At the entry that was signed, wherever before it the change is; nothing else could tell."""
    entries, counts = log
    claim = Claim(entries[-2].id, entries[-2].hash, "the signer")
    anew = change(entries, 3, actor="nobody")
    assert verify(anew, counts)[0] == []
    problems, _ = verify(anew, counts, [claim])
    assert [p.entry for p in problems] == [claim.entry] and "written anew" in problems[0].text


def test_an_end_that_was_taken_off_shows_by_what_was_signed(log: tuple[list[AuditEntry], Counts]) -> None:
    """The log ends before an entry that somebody saw."""
    entries, counts = log
    claim = Claim(entries[-1].id, entries[-1].hash, "the signer")
    problems, _ = verify(entries[:-1], counts, [claim])
    assert any(f"the signer names entry {claim.entry}, the log ends at" in p.text for p in problems)


def test_an_entry_that_cannot_be_read_is_one_problem(log: tuple[list[AuditEntry], Counts]) -> None:
    """Named once; the ones behind it are judged on."""
    entries, counts = log
    verification, found = Verification(), []
    order = of_kind(entries, "order")[0]
    for entry in entries:
        found += verification.see(entry, "its body does not unpack" if entry is order else "")
    assert [p.entry for p in [*found, *verification.finish(counts)]] == [order.id]


@pytest.mark.parametrize("body", [b"junk", b"[]", b'{"moves":7}'])
def test_figures_of_another_form_are_a_problem(log: tuple[list[AuditEntry], Counts], body: bytes) -> None:
    """Whatever stands there, it is named and nothing crashes."""
    entries, counts = log
    for kind in ("moves", "decision"):
        number = of_kind(entries, kind)[0].id
        assert number in {p.entry for p in verify(change(entries, number, body=body), counts)[0]}
