"""All brokers of a fleet: what is asked of delivery is asked of each, and none holds up another.

A release is published when one broker has all of it; those that have not are named, and made right when they return. A
halt is answered when nothing is on its way to any broker: one that does not answer in time is cut off.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from orchestrator.config import TimingSettings
from orchestrator.delivery.delivery import Delivery
from orchestrator.errors import OperationError
from orchestrator.storage import brokers, chunk_keeping, dirty
from orchestrator.storage.database import Database
from orchestrator.storage.releases import PUBLISHED, get
from protocol.clock import Clock
from protocol.errors import FlagshipError

log = structlog.get_logger(__name__)

LATE = "not complete yet; it goes on"


@dataclass(frozen=True, slots=True)
class Published:
    """What came of publishing a release.

    Attributes:
        sent_bytes: Ciphertext bytes, to all brokers together.
        behind: Why a broker does not have all of it yet, by its name.
    """

    sent_bytes: int
    behind: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Standing:
    """How one broker stands.

    Attributes:
        topics: Marks that were not published there yet.
        releases: Those that it is to have and has not.
        why: What keeps it; "" for nothing.
    """

    name: str
    connected: bool
    topics: int
    releases: list[str]
    why: str


class BrokerSet:
    """The deliveries of one fleet, in the order in which devices try their brokers."""

    def __init__(self, db: Database, deliveries: Sequence[Delivery], timing: TimingSettings, clock: Clock) -> None:
        self._db = db
        self.deliveries = tuple(deliveries)
        self._timing = timing
        self._clock = clock

    @property
    def connected(self) -> bool:
        """Whether some broker is reached."""
        return any(delivery.connected for delivery in self.deliveries)

    @property
    def signer_trouble(self) -> str:
        """What keeps the signer from signing, for people; "" when all is well."""
        return self.deliveries[0].signer_trouble

    def wake(self) -> None:
        """There are new marks: look at once."""
        for delivery in self.deliveries:
            delivery.wake()

    async def barrier(self) -> list[str]:
        """Wait until sends in flight have ended on every broker; returns the brokers whose connection was cut."""
        answers = await asyncio.gather(*(each.barrier(self._timing.barrier_wait_s) for each in self.deliveries))
        return [each.broker for each, ended in zip(self.deliveries, answers, strict=True) if not ended]

    async def standing(self) -> list[Standing]:
        """How each broker stands."""
        async with self._db.read() as conn:
            topics, lacking = await dirty.count(conn), await brokers.all_lacking(conn)
        return [
            Standing(each.broker, each.connected, topics.get(each.broker, 0), lacking.get(each.broker, []), each.why)
            for each in self.deliveries
        ]

    async def publish_release(self, release: str) -> Published:
        """Bring a release to every broker; done when one has all of it.

        Raises:
            NotFoundError: It was not imported here.
            OperationError: No broker has all of it: what the first one said; calling again goes on from there.
        """
        names, now = [each.broker for each in self.deliveries], self._clock.now()
        async with self._db.begin() as conn:
            await brokers.fall_behind(conn, names, [release], now)
            if await get(conn, release) is not None:
                for name in names:
                    await chunk_keeping.ask(conn, name, release, now)
        tasks = {each.broker: asyncio.create_task(each.publish_release(release)) for each in self.deliveries}
        try:
            await self._wait(tasks)
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        sent = {name: task.result() for name, task in tasks.items() if _failure(task) is None}
        failed = {name: why for name, task in tasks.items() if (why := _failure(task)) is not None}
        if not sent:
            await self._take_back(names, release)
            raise next(iter(failed.values()))
        for each in self.deliveries:
            if each.broker in failed:
                each.look_for_releases()
        behind = {
            each.broker: each.why or str(failed[each.broker]) for each in self.deliveries if each.broker in failed
        }
        if behind:
            log.warning("release not on every broker", release=release, behind=behind)
        return Published(sum(sent.values()), behind)

    async def _wait(self, tasks: dict[str, "asyncio.Task[int]"]) -> None:
        """Until one has succeeded, and those that are connected had their time; or until all have failed."""
        waiting = set(tasks.values())
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if any(_failure(task) is None for task in done):
                break
        slow = {tasks[each.broker] for each in self.deliveries if each.connected} & waiting
        if slow:
            await asyncio.wait(slow, timeout=self._timing.publish_wait_s)

    async def _take_back(self, names: Sequence[str], release: str) -> None:
        """Nobody has it: it is not brought later behind the back of who was told so."""
        async with self._db.begin() as conn:
            known = await get(conn, release)
            if known is None or known.state != PUBLISHED:
                for name in names:
                    await brokers.catch_up(conn, name, release)


def _failure(task: "asyncio.Task[int]") -> FlagshipError | None:
    """Why a broker does not have it; None when it has."""
    if task.cancelled() or not task.done():
        return OperationError(LATE)
    error = task.exception()
    if error is not None and not isinstance(error, FlagshipError):
        raise error
    return error
