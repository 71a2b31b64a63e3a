"""What comes down the connection, sorted: trust metadata, directives, chunks, the marker of ingest.

Retained messages arrive in any order, so a directive that cannot be judged yet is kept, newest per topic, and judged
again when trust was refreshed. Verification runs in a thread, one batch at a time. What is refused is counted, logged
and told to the operator with the next readiness; it never moves the machine.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from device_client.download.sources import MqttSource
from device_client.errors import DeviceError
from device_client.refusals import Refusals
from device_client.verification.release import Verifier
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
_NOT_YET = frozenset({ErrorCode.WITHHELD, ErrorCode.FREEZE})

Take = Callable[[Offer | Announcement], Awaitable[None]]


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
    ) -> None:
        self._topics = topics
        self._verifier = verifier
        self._source = source
        self._take = take
        self._on_generation = on_generation
        self._files: dict[str, bytes] = {}
        self._roots: dict[str, bytes] = {}
        self._trust_changed = True
        self._announcements: dict[str, bytes] = {}
        self._offers: dict[str, bytes] = {}
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
        """Judge what came, whenever something did."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._trust_changed:
                self._trust_changed = False
                await self._refresh()
            await self._judge_announcements()
            await self._judge_offers()

    def judge_again(self) -> None:
        """Time has passed or trust was restored: look at what is kept once more."""
        self._changed.set()

    def _sort(self, kind: Kind, values: dict[str, str], payload: bytes) -> None:
        match kind:
            case Kind.CHUNK:
                self._source.deliver(values["cid"], payload)
                return
            case Kind.TRUST_ROOT:
                self._roots[f"{values['n']}.root.json"] = payload
                self._trust_changed = True
            case Kind.TRUST_BUNDLE:
                self._files = {**unpack_bundle(payload), **_timestamp(self._files)}
                self._trust_changed = True
            case Kind.TRUST_TIMESTAMP:
                self._files = {**self._files, "timestamp.json": payload}
                self._trust_changed = True
            case Kind.ANNOUNCE:
                _keep(self._announcements, values["rollout"], payload)
            case Kind.OFFER:
                _keep(self._offers, values["rollout"], payload)
            case Kind.STATUS_SYNC:
                self._note_generation(payload)
                return
            case _:
                raise ProtocolError(ErrorCode.SCOPE, f"{kind.value}: not for a device")
        self._changed.set()

    def _note_generation(self, payload: bytes) -> None:
        ingest = decode(payload, Sync).ingest
        if self._ingest and ingest != self._ingest:
            self._on_generation()
        self._ingest = ingest

    async def _refresh(self) -> None:
        try:
            await asyncio.to_thread(self._verifier.refresh, {**self._roots, **self._files})
            self.refusals.accepted("")
        except ProtocolError as error:
            if not (error.code is ErrorCode.WITHHELD and not self._files):
                self.refusals.add("", error)
        except DeviceError as error:
            log.error("trust not stored", why=str(error))

    async def _judge_announcements(self) -> None:
        for rollout, raw in list(self._announcements.items()):
            try:
                accepted = await asyncio.to_thread(self._verifier.accept_announcement, rollout, raw)
            except ProtocolError as error:
                self._refused(self._announcements, rollout, raw, error)
                continue
            except DeviceError as error:
                log.error("announcement not stored", rollout_id=rollout, why=str(error))
                continue
            _done(self._announcements, rollout, raw)
            self.refusals.accepted(rollout)
            await self._take(accepted.message)

    async def _judge_offers(self) -> None:
        for rollout, raw in list(self._offers.items()):
            try:
                accepted = await asyncio.to_thread(self._verifier.accept_offer, rollout, raw)
            except ProtocolError as error:
                self._refused(self._offers, rollout, raw, error)
                continue
            except DeviceError as error:
                log.error("offer not stored", rollout_id=rollout, why=str(error))
                continue
            _done(self._offers, rollout, raw)
            self.refusals.accepted(rollout)
            await self._take(accepted.message)

    def _refused(self, kept: dict[str, bytes], rollout: str, raw: bytes, error: ProtocolError) -> None:
        if error.code in _NOT_YET or (error.code is ErrorCode.SIGNATURE and self._trust_changed):
            return  # judged again when trust was refreshed
        _done(kept, rollout, raw)
        self.refusals.add(rollout, error)


def _keep(kept: dict[str, bytes], rollout: str, payload: bytes) -> None:
    if len(kept) >= MAX_WAITING and rollout not in kept:
        raise ProtocolError(ErrorCode.OVERSIZE, f"more than {MAX_WAITING} rollouts at once")
    kept[rollout] = payload


def _done(kept: dict[str, bytes], rollout: str, raw: bytes) -> None:
    if kept.get(rollout) is raw:
        del kept[rollout]


def _timestamp(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name == "timestamp.json"}
