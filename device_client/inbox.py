"""What comes down the connection, sorted: trust metadata, directives, chunks, the marker of ingest.

Retained messages arrive in any order, so a directive that cannot be judged yet is kept, newest per topic, and judged
again when trust was refreshed or time has passed; one that nobody known has signed may be by a key that the next trust
bundle lists. Verification runs in a thread, one at a time. What is refused is counted, logged and told to the operator
with the next readiness; it never moves the machine.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from device_client.download.mqtt_source import MqttSource
from device_client.errors import DeviceError
from device_client.refusals import Refusals
from device_client.verification.release import Accepted, Verifier
from protocol.directives import Announcement, Offer
from protocol.envelopes import decode
from protocol.errors import ErrorCode, ProtocolError
from protocol.mqtt.connection import Message
from protocol.status_messages import Sync
from protocol.topics import RULES, Kind, Topics
from protocol.trust.bundle import unpack_bundle

log = structlog.get_logger(__name__)

MAX_WAITING = 256
"""Directives kept until they can be judged; more rollouts than that at once is a flood."""
MAX_UNPROVEN = 16
"""Directives with a signature of nobody known that are kept until the next trust; the oldest go first."""
MAX_ROOTS = 256
"""Root versions kept; as many rotations are walked in one go, and the nearest are walked first."""
_NOT_YET = frozenset({ErrorCode.WITHHELD, ErrorCode.FREEZE})

Take = Callable[[Offer | Announcement], Awaitable[None]]
Accept = Callable[[str, bytes], Accepted[Offer] | Accepted[Announcement]]


class _Pile:
    """Directives of one kind that wait to be judged: the newest of each rollout."""

    def __init__(self) -> None:
        self.waiting: dict[str, bytes] = {}
        self._unproven: dict[str, bytes] = {}

    def keep(self, rollout: str, raw: bytes) -> None:
        """Let it wait.

        Raises:
            ProtocolError: E_OVERSIZE: too many wait already.
        """
        if len(self.waiting) >= MAX_WAITING and rollout not in self.waiting:
            raise ProtocolError(ErrorCode.OVERSIZE, f"more than {MAX_WAITING} rollouts at once")
        self.waiting[rollout] = raw

    def done(self, rollout: str, raw: bytes) -> None:
        """It was judged; what came meanwhile still waits."""
        if self.waiting.get(rollout) is raw:
            del self.waiting[rollout]
        self._unproven.pop(rollout, None)

    def set_aside(self, rollout: str, raw: bytes) -> None:
        """Nobody known has signed it: wait for other keys."""
        self.done(rollout, raw)
        if len(self._unproven) >= MAX_UNPROVEN:
            self._unproven.pop(next(iter(self._unproven)))
        self._unproven[rollout] = raw

    def bring_back(self) -> None:
        """There may be other keys now."""
        self.waiting = {**self._unproven, **self.waiting}
        self._unproven = {}


class Inbox:
    """One device's ear."""

    def __init__(
        self,
        topics: Topics,
        verifier: Verifier,
        source: MqttSource,
        take: Take,
        on_generation: Callable[[], None],
        refusals: Refusals,
        again_s: float,
    ) -> None:
        """Listen.

        Args:
            take: Is handed what was accepted; may be the very same once more.
            on_generation: Called when ingest began anew.
            again_s: How often what could not be judged is looked at again: a clock that was wrong may be right by now.
        """
        self._topics = topics
        self._chunks = topics.filter(Kind.CHUNK).removesuffix("+")
        self._verifier = verifier
        self._source = source
        self._take = take
        self._on_generation = on_generation
        self._again_s = again_s
        self._files: dict[str, bytes] = {}
        self._roots: dict[int, bytes] = {}
        self._trust_changed = True
        self._late = False
        self._announcements = _Pile()
        self._offers = _Pile()
        self._changed = asyncio.Event()
        self._changed.set()
        self._ingest = ""
        self.refusals = refusals

    def subscriptions(self, device: str) -> list[tuple[str, int]]:
        """What to subscribe to on every new connection."""
        kinds = (Kind.TRUST_ROOT, Kind.TRUST_BUNDLE, Kind.TRUST_TIMESTAMP, Kind.ANNOUNCE, Kind.STATUS_SYNC)
        filters = [(self._topics.filter(kind), RULES[kind].qos) for kind in kinds]
        return [*filters, (self._topics.filter(Kind.OFFER, device=device), RULES[Kind.OFFER].qos)]

    def receive(self, message: Message) -> None:
        """Sort one message; never raises, never waits."""
        if message.topic.startswith(self._chunks):  # nearly all that comes, and the source knows what it asked for
            self._source.deliver(message.topic[len(self._chunks) :], message.payload)
            return
        try:
            topic = self._topics.parse(message.topic)
            if len(message.payload) > RULES[topic.kind].max_bytes:
                raise ProtocolError(ErrorCode.OVERSIZE, f"{topic.kind.value}: {len(message.payload)} B")
            if not message.payload:
                return  # a cleared topic means nothing
            self._sort(topic.kind, topic.values, message.payload)
        except ProtocolError as error:
            self.refusals.add("", error)

    async def run(self) -> None:
        """Judge what came whenever something did, and what is left when some time has passed."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._again_s):
                    await self._changed.wait()
            self._changed.clear()
            if self._trust_changed or self._late:
                self._trust_changed = False
                await self._refresh()
            await self._judge(self._announcements, self._verifier.accept_announcement)
            await self._judge(self._offers, self._verifier.accept_offer)

    def _sort(self, kind: Kind, values: dict[str, str], payload: bytes) -> None:
        match kind:
            case Kind.TRUST_ROOT:
                self._keep_root(int(values["n"]), payload)
                self._trust_changed = True
            case Kind.TRUST_BUNDLE:
                self._files = {**unpack_bundle(payload), **_timestamp(self._files)}
                self._trust_changed = True
            case Kind.TRUST_TIMESTAMP:
                self._files = {**self._files, "timestamp.json": payload}
                self._trust_changed = True
            case Kind.ANNOUNCE:
                self._announcements.keep(values["rollout"], payload)
            case Kind.OFFER:
                self._offers.keep(values["rollout"], payload)
            case Kind.STATUS_SYNC:
                self._note_generation(payload)
                return
            case _:
                raise ProtocolError(ErrorCode.SCOPE, f"{kind.value}: not for a device")
        self._changed.set()

    def _keep_root(self, number: int, payload: bytes) -> None:
        """Roots are never cleared, and a broker may invent any number of them: those behind us are of no use."""
        if number <= self._verifier.root_version:
            return
        self._roots[number] = payload
        if len(self._roots) > MAX_ROOTS:
            del self._roots[max(self._roots)]

    def _note_generation(self, payload: bytes) -> None:
        ingest = decode(payload, Sync).ingest
        if self._ingest and ingest != self._ingest:
            self._on_generation()
        self._ingest = ingest

    async def _refresh(self) -> None:
        roots = {f"{number}.root.json": data for number, data in self._roots.items()}
        self._late = False
        try:
            await asyncio.to_thread(self._verifier.refresh, {**roots, **self._files})
            self.refusals.accepted("")
        except ProtocolError as error:
            self._late = error.code in (ErrorCode.FREEZE, ErrorCode.SPACE)
            if not (error.code is ErrorCode.WITHHELD and not self._files):
                self.refusals.add("", error)
            return
        except DeviceError as error:
            self._late = True
            log.error("trust not stored", why=str(error))
            return
        self._roots = {n: data for n, data in self._roots.items() if n > self._verifier.root_version}
        self._announcements.bring_back()
        self._offers.bring_back()

    async def _judge(self, pile: _Pile, accept: Accept) -> None:
        for rollout, raw in list(pile.waiting.items()):
            try:
                accepted = await asyncio.to_thread(accept, rollout, raw)
            except ProtocolError as error:
                self._refused(pile, rollout, raw, error)
                continue
            except DeviceError as error:
                log.error("directive not stored", rollout_id=rollout, why=str(error))
                continue
            pile.done(rollout, raw)
            self.refusals.accepted(rollout)
            await self._take(accepted.message)

    def _refused(self, pile: _Pile, rollout: str, raw: bytes, error: ProtocolError) -> None:
        if error.code in _NOT_YET:
            return  # judged again when trust was refreshed
        if error.code is ErrorCode.SIGNATURE:
            pile.set_aside(rollout, raw)
            if self._trust_changed:
                return  # other keys are here already
        else:
            pile.done(rollout, raw)
        self.refusals.add(rollout, error)


def _timestamp(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name == "timestamp.json"}
