"""Probes one broker and takes away what it left there. Blocking.

Every retained message stands on a chunk topic of a random name, which no device asks for; those that prove the access
list stand on names of the probe's own. They are noted before they are sent, and cleared whatever happens.
"""

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from statistics import median

from orchestrator.broker_check.figures import Figures
from orchestrator.broker_check.probe_client import Access, ProbeClient
from orchestrator.errors import NotAllowedError, OperationError, TimedOutError
from protocol.chunks import MAX_CIPHERTEXT_BYTES
from protocol.topics import Kind, Topics

CHUNK_BYTES = 65_536
SMALL_BYTES = 32
OVERSIZE_BYTES = 2**20
WINDOWS = (16, 32, 64, 128, 256)
LOOKUP_TOPICS = 16
LOOKUP_TIMES = 5
STALL_S = 1.0
SILENCE_S = 1.5
SLOW_RECEIVE_BYTES = 65_536
CLEAR_S = 30.0
"""For clearing, whatever was left of the check's own time."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a check may cost.

    Attributes:
        timeout_s: Of all probes together.
        most_bytes: Retained payload at one time.
        others: Small retained messages beside those that are looked up.
        stall_s: How long the slow reader does not read.
        silence_s: After which what has not come counts as lost.
    """

    timeout_s: float = 120.0
    most_bytes: int = 64 * 2**20
    others: int = 1000
    stall_s: float = STALL_S
    silence_s: float = SILENCE_S


@dataclass(slots=True)
class _Check:
    """One check under way."""

    topics: Topics
    delivery: Access
    device: Access | None
    bounds: Bounds
    progress: Callable[[str], None]
    deadline: float
    figures: Figures = field(default_factory=Figures)
    made: set[str] = field(default_factory=set)
    mark: str = field(default_factory=lambda: secrets.token_hex(4))

    def client(self, *, slow: bool = False) -> ProbeClient:
        size = SLOW_RECEIVE_BYTES if slow else 0
        return ProbeClient(self.delivery, mqtt5=self.figures.mqtt5, deadline=self.deadline, receive_bytes=size)

    def chunks(self, count: int, size: int) -> dict[str, bytes]:
        """Topics with content that no other has."""
        payloads = (os.urandom(size) for _ in range(count))
        return {self.topics.build(Kind.CHUNK, cid=hashlib.sha256(data).hexdigest()): data for data in payloads}

    def publish(self, client: ProbeClient, items: dict[str, bytes], *, qos: int = 1) -> dict[str, str]:
        self.made |= items.keys()
        return client.publish(items, qos=qos)


def check_broker(
    topics: Topics,
    delivery: Access,
    device: Access | None,
    bounds: Bounds,
    progress: Callable[[str], None] = lambda _what: None,
) -> Figures:
    """Probe a broker.

    Args:
        delivery: The identity that publishes chunks.
        device: A device's identity, to prove the access list; None leaves that out.
        progress: Told what is probed.

    Raises:
        UnreachableError: No connection.
        NotAllowedError: It refuses the delivery identity with MQTT 5 and with 3.1.1.
        OperationError: What was left on the broker could not be cleared; names how much.
    """
    check = _Check(topics, delivery, device, bounds, progress, time.monotonic() + bounds.timeout_s)
    try:
        _connect(check)
        try:
            _probe(check)
        except TimedOutError as error:
            check.figures.skipped = str(error)
        except OperationError as error:
            check.figures.skipped = f"the broker ended the check: {error}"
    finally:
        _clear(check)
    return check.figures


def _connect(check: _Check) -> None:
    check.progress("connecting")
    try:
        client = ProbeClient(check.delivery, mqtt5=True, deadline=check.deadline)
        check.figures.mqtt5 = True
    except NotAllowedError:
        client = ProbeClient(check.delivery, mqtt5=False, deadline=check.deadline)
    check.figures.tls = client.tls
    client.close()


def _probe(check: _Check) -> None:
    for what, probe in (
        ("retained lookup", _lookup),
        ("wildcard", _wildcard),
        ("packet size", _packets),
        ("windows and QoS", _windows),
        ("access list", _access),
        ("clearing", _clearing),
    ):
        check.progress(what)
        probe(check)


def _keep(check: _Check, client: ProbeClient, items: dict[str, bytes]) -> set[str]:
    """Publish retained and read back; the topics that hold what was sent."""
    figures = check.figures
    refused = check.publish(client, items)
    figures.acknowledged += len(items) - len(refused)
    figures.refused = next(iter(refused.values()), figures.refused)
    kept: set[str] = set()
    names = [topic for topic in items if topic not in refused]
    for start in range(0, len(names), LOOKUP_TOPICS):
        asked = names[start : start + LOOKUP_TOPICS]
        client.subscribe(asked, 1)
        came = client.collect(asked, check.bounds.silence_s)
        client.unsubscribe(asked)
        kept |= {topic for topic in asked if came.digests.get(topic) == hashlib.sha256(items[topic]).hexdigest()}
        if not kept:
            break  # it does not retain: asking for the rest would only take time
    figures.read_back += len(kept)
    return kept


def _lookup(check: _Check) -> None:
    client = check.client()
    few = check.chunks(LOOKUP_TOPICS, SMALL_BYTES)
    if len(_keep(check, client, few)) == len(few):
        check.figures.lookup_few_s = _lookup_s(client, few, check.bounds.silence_s)
        check.figures.lookup_others = check.bounds.others
        check.publish(client, check.chunks(check.bounds.others, SMALL_BYTES))
        check.figures.lookup_many_s = _lookup_s(client, few, check.bounds.silence_s)
    client.close()


def _lookup_s(client: ProbeClient, topics: Iterable[str], silence_s: float) -> float | None:
    """Median time of asking for some retained topics; None where they do not all come."""
    names, times = list(topics), []
    for _ in range(LOOKUP_TIMES):
        began = time.monotonic()
        client.subscribe(names, 1)
        came = client.collect(names, silence_s)
        if len(came.digests) < len(names):
            return None
        times.append(time.monotonic() - began)
        client.unsubscribe(names)
    return median(times)


def _wildcard(check: _Check) -> None:
    """All of our small messages by ``chunk/+``: a fleet's own chunks come with them, and are read up to a bound."""
    own = set(check.made)
    client = check.client()
    client.subscribe([f"{check.topics.root}/chunk/+"], 1)
    came = client.collect(own, check.bounds.silence_s, check.bounds.most_bytes)
    client.close()
    if came.size_bytes < check.bounds.most_bytes:
        check.figures.wildcard_found, check.figures.wildcard_of = len(came.digests), len(own)


def _packets(check: _Check) -> None:
    client = check.client()
    largest = check.chunks(1, MAX_CIPHERTEXT_BYTES)
    check.figures.chunk_ok = len(_keep(check, client, largest)) == 1
    client.close()
    client = check.client()
    oversize = check.chunks(1, OVERSIZE_BYTES)
    refused = check.publish(client, oversize)
    client.close()
    if refused:
        check.figures.oversize = f"refused ({next(iter(refused.values()))})"
        return
    reader = check.client()
    reader.subscribe(list(oversize), 1)
    came = reader.collect(oversize, check.bounds.silence_s)
    check.figures.oversize = "taken" if came.digests else "acknowledged and lost"
    reader.close()


def _windows(check: _Check) -> None:
    """Windows to a reader that is slow at first, then the same chunks to one that is not."""
    most = min(max(WINDOWS), check.bounds.most_bytes // CHUNK_BYTES)
    publisher = check.client()
    items = check.chunks(most, CHUNK_BYTES)
    kept = _keep(check, publisher, items)
    names = [topic for topic in items if topic in kept]
    publisher.close()
    for qos in (1, 0):
        for window in (size for size in WINDOWS if size <= len(names)):
            reader = check.client(slow=True)
            reader.subscribe(names[:window], qos, wait=False)
            reader.stall(check.bounds.stall_s)
            came = reader.collect(names[:window], check.bounds.silence_s)
            check.figures.windows[qos, window] = len(came.digests)
            reader.close()
        _rate(check, names, qos)


def _rate(check: _Check, names: list[str], qos: int) -> None:
    client, size_bytes, took_s = check.client(), 0, 0.0
    for start in range(0, len(names), LOOKUP_TOPICS):
        asked = names[start : start + LOOKUP_TOPICS]
        began = time.monotonic()
        client.subscribe(asked, qos)
        came = client.collect(asked, check.bounds.silence_s)
        client.unsubscribe(asked)
        if len(came.digests) == len(asked):
            size_bytes += came.size_bytes
            took_s += time.monotonic() - began
    client.close()
    if took_s:
        check.figures.qos_rate[qos] = size_bytes / took_s


def _access(check: _Check) -> None:
    if check.device is None:
        return
    probe, other = f"probe-{check.mark}", f"other-{check.mark}"
    offer = check.topics.build(Kind.OFFER, device=other, rollout=probe)
    forged = {
        check.topics.build(Kind.CHUNK, cid=secrets.token_hex(32)): b"forged",
        check.topics.build(Kind.ANNOUNCE, rollout=probe): b"forged",
        check.topics.build(Kind.OFFER, device=f"third-{check.mark}", rollout=probe): b"forged",
    }
    delivery = check.client()
    check.publish(delivery, {offer: b"for another device"})
    device = ProbeClient(check.device, mqtt5=check.figures.mqtt5, deadline=check.deadline)
    device.subscribe([offer], 1)
    check.figures.spied = bool(device.collect([offer], check.bounds.silence_s).digests)
    for topic, payload in forged.items():
        with contextlib.suppress(OperationError):  # a broker may end the connection of who forges
            check.publish(device, {topic: payload})
    device.close()
    delivery.subscribe(list(forged), 1)
    came = delivery.collect(forged, check.bounds.silence_s)
    delivery.close()
    below = len(check.topics.root) + 1
    check.figures.forged = {topic[below:].split("/")[0]: topic in came.digests for topic in forged}


def _clearing(check: _Check) -> None:
    client = check.client()
    one = check.chunks(1, SMALL_BYTES)
    check.publish(client, one)
    client.publish(dict.fromkeys(one, b""))
    client.close()
    reader = check.client()
    reader.subscribe(list(one), 1)
    check.figures.cleared = not reader.collect(one, check.bounds.silence_s).digests
    reader.close()


def _clear(check: _Check) -> None:
    """Take away everything; a second connection, for the first may be gone."""
    if not check.made:
        return
    check.progress("clearing")
    check = replace(check, deadline=time.monotonic() + CLEAR_S)
    try:
        client = check.client()
        client.publish(dict.fromkeys(sorted(check.made), b""))
        client.close()
    except OperationError as error:
        raise OperationError(
            f"{len(check.made)} retained messages of the check may be left on the broker: {error}; run it again"
        ) from error
