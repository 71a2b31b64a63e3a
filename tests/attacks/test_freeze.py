"""F and W: what is valid no more, what never comes, and versions that were put out of reach."""

from datetime import UTC, datetime, timedelta

import pytest

from protocol.clock import SystemClock
from protocol.errors import ErrorCode
from protocol.topics import Kind
from tests.attacks.arena import Arena, Victim, whole
from tests.attacks.books import RELEASES, Books
from tests.attacks.catalogue import attack
from tests.integration.small_fleet import installed, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
HOUR = timedelta(hours=1)
RAN_OUT = "Its trust metadata ran out"
FAR = 1_000_000


class MovedClock(SystemClock):
    """The machine's clock, put forward or back; durations stay what they are."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def now(self) -> datetime:
        """The time that somebody made it believe."""
        return super().now() + self.offset

    def set_to(self, now: datetime) -> None:
        """Go on from another instant."""
        self.offset = now - super().now()


@attack("F1", "E_FREEZE; stale")
async def test_f1_metadata_that_is_kept_from_getting_newer(ground: Arena) -> None:
    """The broker hands out the same timestamp for longer than a week, so that no device learns of a fix."""
    clock = MovedClock()
    async with ground.victim(clock) as victim:
        clock.set_to(datetime.now(UTC) + timedelta(days=8))
        await ground.seen(victim, RAN_OUT)
        await ground.order(victim, "r-f1", ground.ref())
        await ground.put(Kind.TRUST_TIMESTAMP, ground.metadata()["timestamp"])
        await ground.fails(victim, ErrorCode.FREEZE)
        assert victim.agent.runner.update is None, "nothing is taken while stale"


@attack("F2", "E_EXPIRED")
async def test_f2_an_order_whose_lease_ran_out(ground: Arena) -> None:
    """The broker holds a go-ahead back, and hands it out when its lease has ended and nobody means it any more."""
    async with ground.victim() as victim:
        await _put_expired(ground, "r-f2")
        await ground.fails(victim, ErrorCode.EXPIRED)
        assert not victim.agent.runner.announcements


@attack("F3", "E_EXPIRED")
async def test_f3_an_expired_order_with_the_clock_set_back(ground: Arena) -> None:
    """The same, and the device's clock was set back to 1970, where no lease has ended yet; it was switched off too."""
    clock = MovedClock()
    async with ground.victim(clock) as victim:
        await _hear_a_genuine_order(ground, victim)
        async with victim.switched_off(clock):
            clock.set_to(datetime(1970, 1, 1, tzinfo=UTC))
        await _put_expired(ground, "r-f3")
        await ground.fails(victim, ErrorCode.EXPIRED)
        assert "r-f3" not in victim.agent.runner.announcements


@attack("F4", "E_FREEZE and E_CLOCK; recovers")
async def test_f4_the_clock_set_forward(ground: Arena) -> None:
    """The device's clock was set to 2099, where everything has run out; it blocks updates only until it is right."""
    clock = MovedClock()
    async with ground.victim(clock) as victim:
        await _hear_a_genuine_order(ground, victim)
        clock.set_to(datetime(2099, 1, 1, tzinfo=UTC))
        await ground.put(Kind.TRUST_TIMESTAMP, ground.metadata()["timestamp"])
        await ground.fails(victim, ErrorCode.FREEZE)
        await ground.fails(victim, ErrorCode.CLOCK)
        clock.set_to(datetime.now(UTC))
        await ground.put(Kind.ANNOUNCE, ground.announcement("r-f4-on", ground.ref()), rollout="r-f4-on")
        await until(lambda: "r-f4-on" in victim.agent.runner.announcements, "it hears orders again")
        assert victim.agent._verifier.now() < datetime.now(UTC) + HOUR, "the year 2099 left no trace"


@attack("F5", "E_WITHHELD")
async def test_f5_metadata_that_never_comes(ground: Arena) -> None:
    """The broker hands out the newest timestamp, and keeps the snapshot that it names to itself."""
    async with ground.victim() as victim:
        books = Books(ground)
        books.bump()
        await ground.put(Kind.TRUST_TIMESTAMP, books.files()["timestamp.json"])
        await ground.fails(victim, ErrorCode.WITHHELD)
        assert victim.believes[RELEASES] == books.releases.version - 1
        await books.publish()
        await victim.believing(RELEASES, books.releases.version)


@attack("F7", "accepted")
async def test_f7_an_expired_root_and_a_newer_one(ground: Arena) -> None:
    """A device comes back after a year on the shelf: its root has expired, and a newer one that it signed is there."""
    clock = MovedClock()
    async with ground.victim(clock) as victim:
        async with victim.switched_off(clock):
            clock.set_to(datetime.now(UTC) + timedelta(days=400))
            books = Books(ground)
            books.bump()
            books.rekey_root()
            for role in (books.root, books.targets, books.releases, books.snapshot, books.timestamp):
                role.expires = whole(clock.now() + timedelta(days=7))
            await books.publish()
        await until(lambda: not victim.agent._verifier.stale, "it believes the newer metadata")
        assert victim.believes["root"] == 2
        assert installed(victim.home) == "1.0.0"


@attack("W1", "accepted again after the rotation")
async def test_w1_versions_that_were_put_out_of_reach(ground: Arena) -> None:
    """Thieves of the snapshot's and timestamp's keys sign enormous versions; the owner replaces both keys."""
    async with ground.victim() as victim:
        thieves = Books(ground)
        thieves.snapshot.version = thieves.timestamp.version = FAR
        await thieves.publish()
        await victim.believing("timestamp", FAR)

        owner = Books(ground)
        owner.bump()
        await owner.publish()
        await ground.fails(victim, ErrorCode.ROLLBACK_METADATA)

        owner.rekey_root("snapshot", "timestamp")
        await owner.publish()
        await victim.believing("root", 2)
        assert victim.believes["snapshot"] == owner.snapshot.version
        assert victim.believes["timestamp"] == owner.timestamp.version
        assert not victim.agent._verifier.stale


async def _put_expired(ground: Arena, rollout: str) -> None:
    now = whole(datetime.now(UTC))
    order = ground.announcement(rollout, ground.ref(), issued=now - 2 * HOUR, expires=now - HOUR)
    await ground.put(Kind.ANNOUNCE, order, rollout=rollout)


async def _hear_a_genuine_order(ground: Arena, victim: Victim) -> None:
    """It proves what time it is at least."""
    await ground.put(Kind.ANNOUNCE, ground.announcement("r-genuine", ground.ref()), rollout="r-genuine")
    await until(lambda: "r-genuine" in victim.agent.runner.announcements, "a genuine order is heard")
