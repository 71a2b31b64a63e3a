"""What comes down, in any order and from anybody: sorted, judged once it can be, refused by code, never too much."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from device_client.download.mqtt_source import MqttSource
from device_client.inbox import MAX_ROOTS, MAX_UNPROVEN, MAX_WAITING, Inbox
from device_client.refusals import Refusals
from protocol.directives import Action, Announcement, Offer
from protocol.envelopes import encode
from protocol.errors import ErrorCode
from protocol.mqtt.connection import Message
from protocol.status_messages import Sync
from protocol.topics import RULES, Kind
from protocol.trust.bundle import pack_bundle
from tests.device_client.lab import DEVICE, Lab, until
from tests.protocol.trust.repository import DIRECTOR, NOW


@dataclass
class Ear:
    """An inbox on a lab's device, and what it let through."""

    lab: Lab
    taken: list[Offer | Announcement] = field(default_factory=list)
    generations: int = 0
    again_s: float = 60

    def __post_init__(self) -> None:
        self.source = MqttSource(self.lab.topics)
        self.inbox = Inbox(
            self.lab.topics,
            self.lab.verifier,
            self.source,
            self._take,
            self._generation,
            Refusals(self.lab.clock),
            self.again_s,
        )

    async def _take(self, message: Offer | Announcement) -> None:
        self.taken.append(message)

    def _generation(self) -> None:
        self.generations += 1

    def hears(self, kind: Kind, payload: bytes, **values: str) -> None:
        """One message of the broker."""
        self.inbox.receive(Message(self.lab.topics.build(kind, **values), payload, True, 1))

    def hears_trust(self, *, bundle: bool = True, timestamp: bool = True) -> None:
        """The repository as it is now."""
        files = self.lab.repository.files()
        time = files.pop("timestamp.json")
        if bundle:
            self.hears(Kind.TRUST_BUNDLE, pack_bundle(files))
        if timestamp:
            self.hears(Kind.TRUST_TIMESTAMP, time)

    def hears_directive(self, message: Offer | Announcement, signer: str = DIRECTOR) -> None:
        """A directive on its own topic."""
        raw = self.lab.signed(message, signer)
        if isinstance(message, Offer):
            self.hears(Kind.OFFER, raw, device=message.device, rollout=message.rollout)
        else:
            self.hears(Kind.ANNOUNCE, raw, rollout=message.rollout)

    def refused(self) -> dict[str, int]:
        """Counts by code."""
        return dict(self.inbox.refusals.counts)


@asynccontextmanager
async def _listening(ear: Ear) -> AsyncIterator[Ear]:
    task = asyncio.create_task(ear.inbox.run())
    try:
        yield ear
        assert not task.done(), "the inbox ended"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _quiet(ear: Ear) -> None:
    """Everything that was heard has been looked at."""
    for _ in range(2):
        await until(lambda: not ear.inbox._changed.is_set())
        await asyncio.sleep(0.03)


@pytest.fixture
def ear(tmp_path: Path) -> Ear:
    """Of a new device."""
    return Ear(Lab(tmp_path / "home"))


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
async def test_any_order_of_what_is_retained(tmp_path: Path, order: tuple[int, ...]) -> None:
    """Bundle, timestamp, announcement and offer arrive in any order: both directives are taken, nothing is refused."""
    ear = Ear(Lab(tmp_path / "home"))
    release = ear.lab.publish()
    announcement, offer = ear.lab.announcement(release), ear.lab.offer(release)
    steps = [
        lambda: ear.hears_trust(timestamp=False),
        lambda: ear.hears_trust(bundle=False),
        lambda: ear.hears_directive(announcement),
        lambda: ear.hears_directive(offer),
    ]
    async with _listening(ear):
        for number in order:
            steps[number]()
            await asyncio.sleep(0)
        await until(lambda: len(ear.taken) == 2)
        assert set(map(type, ear.taken)) == {Announcement, Offer}
    assert not {code for code in ear.refused() if code != ErrorCode.WITHHELD.value}


async def test_a_directive_by_a_director_whose_keys_come_later(ear: Ear) -> None:
    """After a rotation a retained announcement may overtake the bundle that lists its key: it is not lost."""
    release = ear.lab.publish()
    ear.lab.refresh()
    old = ear.lab.repository.signers[DIRECTOR]
    ear.lab.repository.signers["next"] = new = CryptoSigner.generate_ed25519()
    async with _listening(ear):
        ear.hears_directive(ear.lab.announcement(release), signer="next")
        await until(lambda: ear.refused() == {ErrorCode.SIGNATURE.value: 1})
        assert ear.taken == []
        ear.lab.repository.targets.revoke_key(old.public_key.keyid, DIRECTOR)
        ear.lab.repository.targets.add_key(new.public_key, DIRECTOR)
        ear.lab.repository.bump()
        ear.hears_trust()
        await until(lambda: len(ear.taken) == 1)
        assert "r" not in ear.inbox.refusals.newest


async def test_forged_directives_do_not_fill_the_house(ear: Ear) -> None:
    """A flood of what nobody known has signed: counted, the newest few kept, and a true one still comes through."""
    release = ear.lab.publish()
    ear.lab.refresh()
    ear.lab.repository.signers["forger"] = CryptoSigner.generate_ed25519()
    async with _listening(ear):
        for number in range(MAX_UNPROVEN + 5):
            ear.hears_directive(ear.lab.announcement(release, rollout=f"f{number}"), signer="forger")
        await until(lambda: ear.refused() == {ErrorCode.SIGNATURE.value: MAX_UNPROVEN + 5})
        assert len(ear.inbox._announcements._unproven) == MAX_UNPROVEN
        ear.hears_directive(ear.lab.announcement(release))
        await until(lambda: len(ear.taken) == 1)


async def test_more_rollouts_than_there_can_be(ear: Ear) -> None:
    """What cannot be judged yet is bounded; the surplus is counted, and what waits is not pushed out."""
    for number in range(MAX_WAITING + 3):
        ear.hears(Kind.ANNOUNCE, b"{}", rollout=f"r{number}")
    assert ear.refused() == {ErrorCode.OVERSIZE.value: 3}
    ear.hears(Kind.ANNOUNCE, b"{1}", rollout="r0")
    assert ear.inbox._announcements.waiting["r0"] == b"{1}"


async def test_invented_roots_are_bounded(ear: Ear) -> None:
    """A broker that invents roots without end fills nothing, and cannot push out the ones that come next."""
    for number in range(MAX_ROOTS + 50, 1, -1):
        ear.hears(Kind.TRUST_ROOT, b"x", n=str(number))
    assert len(ear.inbox._roots) == MAX_ROOTS
    assert min(ear.inbox._roots) == 2


async def test_roots_behind_us_are_dropped(ear: Ear) -> None:
    """Once a root is trusted the ones up to it are of no use; they are not kept, and not kept again."""
    ear.lab.publish()
    async with _listening(ear):
        ear.hears(Kind.TRUST_ROOT, ear.lab.root, n="1")
        ear.hears_trust()
        await until(lambda: ear.lab.verifier.root_version == 1)
        await _quiet(ear)
        assert ear.inbox._roots == {}
        ear.hears(Kind.TRUST_ROOT, ear.lab.root, n="1")
        assert ear.inbox._roots == {}


async def test_the_same_again_is_taken_again(ear: Ear) -> None:
    """After a restart the machine knows nothing: the very same directive is handed on, and is no refusal."""
    release = ear.lab.publish()
    ear.lab.refresh()
    offer = ear.lab.offer(release)
    async with _listening(ear):
        ear.hears_directive(offer)
        await until(lambda: len(ear.taken) == 1)
        ear.hears_directive(offer)
        await until(lambda: len(ear.taken) == 2)
        assert ear.refused() == {}


async def test_refusals_are_counted_and_told(ear: Ear) -> None:
    """Each refusal has its code and its rollout; the next good directive of that rollout clears what is told."""
    release = ear.lab.publish()
    ear.lab.refresh()
    first, second, third = (ear.lab.announcement(release) for _ in range(3))
    async with _listening(ear):
        ear.hears_directive(second)
        await until(lambda: len(ear.taken) == 1)
        ear.hears_directive(first)
        await until(lambda: "r" in ear.inbox.refusals.newest)
        ear.hears_directive(second.model_copy(update={"action": Action.ABORT}))
        await until(lambda: ear.inbox.refusals.newest["r"][0] is ErrorCode.EQUIVOCATION)
        ear.hears_directive(third.model_copy(update={"expires": NOW}))
        await until(lambda: ear.inbox.refusals.newest["r"][0] is ErrorCode.EXPIRED)
        assert [message.order for message in ear.taken] == [second.order]
        assert ear.refused() == {"E_REPLAY": 1, "E_EQUIVOCATION": 1, "E_EXPIRED": 1}
        ear.hears_directive(third)
        await until(lambda: len(ear.taken) == 2)
        assert "r" not in ear.inbox.refusals.newest


async def test_an_offer_to_another_device(ear: Ear) -> None:
    """Another device's offer under this device's topic is E_SCOPE."""
    release = ear.lab.publish()
    ear.lab.refresh()
    raw = ear.lab.signed(ear.lab.offer(release, device="d2"))
    async with _listening(ear):
        ear.hears(Kind.OFFER, raw, device=DEVICE, rollout="r")
        await until(lambda: ear.refused() == {ErrorCode.SCOPE.value: 1})
        assert ear.taken == []


async def test_a_clock_that_was_wrong(tmp_path: Path) -> None:
    """Metadata that seemed expired is verified again by itself when the clock was set right; nobody repeats it."""
    ear = Ear(Lab(tmp_path / "home"), again_s=0.02)
    release = ear.lab.publish()
    announcement = ear.lab.announcement(release)
    ear.lab.clock.set_wall(NOW + timedelta(days=400))
    async with _listening(ear):
        ear.hears_trust()
        ear.hears_directive(announcement)
        await until(lambda: ErrorCode.FREEZE.value in ear.refused())
        assert ear.taken == []
        ear.lab.clock.set_wall(NOW)
        await until(lambda: len(ear.taken) == 1)


async def test_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    """Floors that cannot be kept refuse nothing and believe nothing; when there is room again it goes on by itself."""
    ear = Ear(Lab(tmp_path / "home"), again_s=0.02)
    release = ear.lab.publish()
    ear.lab.refresh()
    blocked = ear.lab.home.state / ".floors-a.json.new"
    blocked.mkdir()
    async with _listening(ear):
        ear.hears_directive(ear.lab.announcement(release))
        await asyncio.sleep(0.1)
        assert ear.taken == []
        assert ear.lab.verifier.floors.orders == {}
        blocked.rmdir()
        await until(lambda: len(ear.taken) == 1)


async def test_a_trust_store_that_cannot_be_written(tmp_path: Path) -> None:
    """A full disk under the trust store is a refusal, not the end of the agent; later it is tried again by itself."""
    ear = Ear(Lab(tmp_path / "home"), again_s=0.02)
    ear.lab.publish()
    blocked = ear.lab.home.trust / "verified.json.new"
    blocked.mkdir()
    async with _listening(ear):
        ear.hears_trust()
        await until(lambda: ErrorCode.SPACE.value in ear.refused())
        blocked.rmdir()
        await until(lambda: not ear.lab.verifier.stale)


@settings(max_examples=150)
@given(
    kind=st.sampled_from([*Kind, None]),
    topic=st.text(max_size=40),
    payload=st.one_of(st.binary(max_size=64), st.sampled_from([b"[" * 200_000, b"\0" * 300_000, b"{}", b"null"])),
)
def test_nothing_that_comes_raises(kind: Kind | None, topic: str, payload: bytes) -> None:
    """Any bytes on any topic: sorting never raises, and never keeps what is too large."""
    with TemporaryDirectory() as directory:
        ear = Ear(Lab(Path(directory) / "home"))
        values = {"device": DEVICE, "rollout": "r", "cid": "ab" * 32, "n": "7", "claim": "claim.c"}
        names = {name: value for name, value in values.items() if kind and "{" + name + "}" in kind.value}
        text = ear.lab.topics.build(kind, **names) if kind else topic
        ear.inbox.receive(Message(text, payload, True, 1))
        kept = [*ear.inbox._announcements.waiting.values(), *ear.inbox._offers.waiting.values()]
        assert all(len(raw) <= RULES[Kind.OFFER].max_bytes for raw in kept)


@settings(max_examples=60)
@given(payload=st.binary(max_size=200))
def test_no_payload_ends_the_judging(payload: bytes) -> None:
    """Whatever stands on a directive's topic is refused by a code of messages, and the inbox goes on."""
    asyncio.run(_judged(payload))


async def _judged(payload: bytes) -> None:
    with TemporaryDirectory() as directory:
        ear = Ear(Lab(Path(directory) / "home"))
        ear.lab.publish()
        ear.lab.refresh()
        async with _listening(ear):
            ear.hears(Kind.ANNOUNCE, payload, rollout="r")
            ear.hears(Kind.OFFER, payload, device=DEVICE, rollout="r")
            await until(lambda: not payload or sum(ear.inbox.refusals.counts.values()) == 2)
            assert ear.taken == []


async def test_a_new_generation_of_ingest(ear: Ear) -> None:
    """The first marker says nothing; another one means that reports may have been lost; a damaged one is refused."""
    marker = Sync(at=NOW, database="db", serial=3, ingest="g1")
    for ingest in ("g1", "g1", "g2"):
        ear.hears(Kind.STATUS_SYNC, encode(marker.model_copy(update={"ingest": ingest})))
    assert ear.generations == 1
    ear.hears(Kind.STATUS_SYNC, b"{")
    assert ear.refused() == {ErrorCode.FORMAT.value: 1}


async def test_what_is_not_for_a_device(ear: Ear) -> None:
    """Another fleet's topic and a topic that devices write are E_SCOPE; a cleared topic means nothing."""
    ear.inbox.receive(Message("ota/v1/south/announce/r", b"{}", True, 1))
    ear.hears(Kind.STATE, b"{}", device="d2")
    assert ear.refused() == {ErrorCode.SCOPE.value: 2}
    ear.hears(Kind.ANNOUNCE, b"", rollout="r")
    assert ear.inbox._announcements.waiting == {}


def test_what_is_subscribed_to(ear: Ear) -> None:
    """The five kinds that every device reads, and its own offers only; never another device's, never chunks."""
    filters = [text.removeprefix("ota/v1/north/") for text, qos in ear.inbox.subscriptions(DEVICE) if qos == 1]
    assert filters == [
        "trust/root/+", "trust/bundle", "trust/timestamp", "announce/+", "status/sync", f"offer/{DEVICE}/+",
    ]  # fmt: skip


async def test_chunks_go_to_the_source(ear: Ear) -> None:
    """What was asked for is handed to whoever asked; a chunk that nobody asked for, or with no name, is dropped."""
    cid = "ab" * 32
    ear.source.attach(Answering())
    asking = asyncio.create_task(ear.source.collect([cid], 60))
    await asyncio.sleep(0)
    ear.hears(Kind.CHUNK, b"stray", cid="cd" * 32)
    ear.inbox.receive(Message("ota/v1/north/chunk/not/a/cid", b"stray", True, 1))
    ear.hears(Kind.CHUNK, b"data", cid=cid)
    assert (await asking).chunks == {cid: b"data"}
    assert ear.refused() == {}


class Answering:
    """A session that takes every request."""

    async def subscribe(self, filters: Sequence[tuple[str, int]], *, timeout_s: float | None = None) -> None:
        """Taken."""

    async def unsubscribe(self, filters: Sequence[str], *, timeout_s: float | None = None) -> None:
        """Taken."""
