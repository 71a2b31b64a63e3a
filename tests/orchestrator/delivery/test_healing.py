"""What a broker may have lost is marked, page by page, and nothing else."""

from orchestrator.delivery.healing import PAGE, mark_later
from orchestrator.storage import published
from orchestrator.storage.database import Database
from protocol.topics import Kind
from tests.orchestrator.delivery.rows import NOW, TOPICS, add_published, take_marks

CID = "ab" * 32


async def healed(db: Database, after: int) -> int:
    """Go through all pages; returns how many."""
    async with db.read() as conn:
        last = await published.last_serial(conn, "main")
    pages = 0
    while after < last:
        async with db.begin() as conn:
            after = await mark_later(conn, "main", TOPICS, NOW, after=after, up_to=last)
        pages += 1
    return pages


async def test_each_topic_comes_back_as_the_mark_that_it_was_made_from(db: Database) -> None:
    """Offers by device and rollout, singletons by nothing; chunks are the audit's."""
    await add_published(db, Kind.TRUST_BUNDLE)
    await add_published(db, Kind.TRUST_ROOT, n="1")
    await add_published(db, Kind.ANNOUNCE, rollout="r-1")
    await add_published(db, Kind.OFFER, device="d1", rollout="r-1")
    await add_published(db, Kind.CHUNK, cid=CID)
    await add_published(db, Kind.STATUS_DEVICE, device="d1")
    await add_published(db, Kind.STATUS_FLEET)
    assert await healed(db, 0) == 1
    assert await take_marks(db) == {
        (Kind.TRUST_BUNDLE, ""), (Kind.TRUST_ROOT, "1"), (Kind.ANNOUNCE, "r-1"), (Kind.OFFER, "d1/r-1"),
        (Kind.STATUS_DEVICE, "d1"), (Kind.STATUS_FLEET, ""),
    }  # fmt: skip


async def test_only_what_is_later_than_the_marker_is_marked(db: Database) -> None:
    """A broker that is one message behind is told one message, also where a topic moved up since."""
    for number in range(5):
        await add_published(db, Kind.ANNOUNCE, rollout=f"r-{number}")
    await add_published(db, Kind.ANNOUNCE, rollout="r-0")
    assert await healed(db, 4) == 1
    assert await take_marks(db) == {(Kind.ANNOUNCE, "r-4"), (Kind.ANNOUNCE, "r-0")}
    assert await healed(db, 6) == 0


async def test_many_topics_are_many_pages(db: Database) -> None:
    """No transaction holds the whole fleet; together they hold everything."""
    for number in range(PAGE + 1):
        await add_published(db, Kind.ANNOUNCE, rollout=f"r-{number}")
    assert await healed(db, 0) == 2
    assert len(await take_marks(db)) == PAGE + 1


async def test_topics_that_were_forgotten_do_not_stop_it(db: Database) -> None:
    """Serials without a row are passed over: the end is reached."""
    await add_published(db, Kind.ANNOUNCE, rollout="r-1")
    topic = await add_published(db, Kind.ANNOUNCE, rollout="r-2")
    async with db.begin() as conn:
        await published.forget(conn, "main", [topic])
    assert await healed(db, 1) == 1
    assert await take_marks(db) == set()
