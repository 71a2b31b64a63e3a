"""Which brokers there are: marks go to each, who joins gets what the others have, who left is forgotten."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import insert

from orchestrator.storage import brokers, chunk_audits, chunk_keeping, dirty, published, removals
from orchestrator.storage.chunk_audits import Audit
from orchestrator.storage.chunk_keeping import Held
from orchestrator.storage.database import Database
from orchestrator.storage.published import Publication
from orchestrator.storage.tables import releases, rollouts
from protocol.topics import Kind, Topics

NOW = datetime(2026, 11, 24, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
TOPICS = Topics("fleet")
OFFER = TOPICS.build(Kind.OFFER, device="d1", rollout="r-1")


async def _use(db: Database, *names: str) -> tuple[list[str], list[str]]:
    return await brokers.use(db, names, TOPICS, NOW)


async def _add_release(db: Database, version: str, state: str, *ended: bool) -> None:
    """A release with one rollout for each of ``ended``."""
    row = {
        "product": "g",
        "version": version,
        "component": "app",
        "path": version,
        "length": 1,
        "sha256": "",
        "counter": 1,
    }
    row |= {"info": {}, "wrapped_key": b"", "image_bytes": 1, "chunk_bytes": 1, "imported_at": NOW, "state": state}
    async with db.begin() as conn:
        await conn.execute(insert(releases).values(id=f"g/{version}", **row))
        for number, over in enumerate(ended):
            times = {"created_at": NOW, "ended_at": NOW if over else None}
            values = {"id": f"r-{version}-{number}", "release": f"g/{version}", "state": "running", "spec": {}}
            await conn.execute(insert(rollouts).values(**values, **times))


async def test_a_mark_is_made_for_every_broker_and_removed_for_one(db: Database) -> None:
    """Under one instant, which rises above that of any broker when it is marked again."""
    await _use(db, "main", "b")
    async with db.begin() as conn:
        await dirty.mark(conn, Kind.OFFER, ["d1/r-1"], NOW)
        (mine,) = await dirty.take(conn, "main", [Kind.OFFER], 10)
        assert await dirty.take(conn, "b", [Kind.OFFER], 10) == [mine]
        await dirty.done(conn, "main", [mine])
        assert await dirty.count(conn) == {"b": 1}
        await dirty.mark(conn, Kind.OFFER, ["d1/r-1"], NOW)
        (again,) = await dirty.take(conn, "main", [Kind.OFFER], 10)
        assert again[2] > NOW
        assert await dirty.take(conn, "b", [Kind.OFFER], 10) == [again]


async def test_a_mark_for_one_broker_is_no_other_brokers(db: Database) -> None:
    """Nor is one made for a broker that there is not."""
    await _use(db, "main", "b")
    async with db.begin() as conn:
        await dirty.mark(conn, Kind.OFFER, ["d1/r-1"], NOW, only="b")
        await dirty.mark(conn, Kind.OFFER, ["d2/r-1"], NOW, only="c")
        assert await dirty.count(conn) == {"b": 1}


async def test_what_is_repeated_keeps_its_instant(db: Database) -> None:
    """And a mark that stands already stays as it is."""
    await _use(db, "main", "b")
    async with db.begin() as conn:
        await dirty.mark(conn, Kind.OFFER, ["d1/r-1"], LATER)
        marks = [(Kind.OFFER, "d1/r-1", NOW), (Kind.OFFER, "d2/r-1", NOW)]
        await dirty.repeat(conn, "b", marks)
        assert await dirty.take(conn, "b", [Kind.OFFER], 10) == [marks[1], (Kind.OFFER, "d1/r-1", LATER)]


async def test_who_joins_gets_marks_topics_and_releases_in_use(db: Database) -> None:
    """Releases whose rollouts have all ended are not brought, nor those that were never published."""
    await _use(db, "main")
    await _add_release(db, "1", "published", True)
    await _add_release(db, "2", "published", True, False)
    await _add_release(db, "3", "published")
    await _add_release(db, "4", "importing")
    async with db.begin() as conn:
        await dirty.mark(conn, Kind.STATUS_FLEET, [""], LATER)
        await published.record(
            conn, "main", [Publication(kind=Kind.OFFER, topic=OFFER, digest="0" * 64, since=NOW, payload=b"x")]
        )
    assert await _use(db, "main", "b") == (["b"], [])
    async with db.begin() as conn:
        assert await dirty.take(conn, "b", [Kind.OFFER, Kind.STATUS_FLEET], 10) == [
            (Kind.OFFER, "d1/r-1", NOW),
            (Kind.STATUS_FLEET, "", LATER),
        ]
        assert await dirty.take(conn, "main", [Kind.OFFER], 10) == []
        assert await brokers.all_lacking(conn) == {"b": ["g/2", "g/3"]}
        await brokers.catch_up(conn, "b", "g/2")
        assert await brokers.lacking(conn, "b") == ["g/3"]


async def test_who_leaves_is_forgotten_and_waited_for_no_more(db: Database) -> None:
    """Marks, topics, removals, releases, how far its audit is, and the word that a closed device is out."""
    await _use(db, "main", "b")
    async with db.begin() as conn:
        await dirty.mark(conn, Kind.OFFER, ["d1/r-1"], NOW)
        item = Publication(kind=Kind.OFFER, topic=OFFER, digest="0" * 64)
        await published.record(conn, "b", [item])
        await removals.cleared(conn, "b", [item], NOW)
        await brokers.fall_behind(conn, ["b"], ["g/1"], NOW)
        await chunk_keeping.set_held(conn, "b", "g/1", Held.WHOLE)
        await chunk_audits.save(conn, "b", Audit(heal_after=3, heal_up_to=9, after="x"))
        await published.set_ingest_generation(conn, "b", "g")
    assert await _use(db, "main") == ([], ["b"])
    async with db.read() as conn:
        assert await dirty.count(conn) == {"main": 1}
        assert await removals.later(conn, "b", after=0, limit=9) == []
        assert await brokers.all_lacking(conn) == {}
        assert await chunk_keeping.on_brokers(conn, ["g/1"]) == {}
        assert await chunk_audits.load(conn, "b") == Audit()
        assert await published.progress(conn, "b") == (0, "")
