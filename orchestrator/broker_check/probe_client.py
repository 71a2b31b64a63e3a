"""An MQTT client that reads only when it is told to, so that a slow reader can be played. Blocking, over paho.

``protocol.mqtt.connection`` reads as fast as it can, which is what a device wants and what a probe must not do.
"""

import contextlib
import hashlib
import socket
import ssl
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from orchestrator.errors import NotAllowedError, TimedOutError, UnreachableError
from protocol.mqtt.tls import tls_context

_STEP_S = 0.05
_KEEPALIVE_S = 60
_IN_FLIGHT = 20


@dataclass(frozen=True, slots=True)
class Access:
    """How one party reaches the broker.

    Attributes:
        ca: What the broker's certificate must chain to.
    """

    host: str
    port: int
    client_id: str
    ca: Path
    certificate: Path
    key: Path


@dataclass(slots=True)
class Arrived:
    """What came of a subscription.

    Attributes:
        digests: sha256 hex of each payload, by topic.
        size_bytes: Of all payloads.
        foreign: Messages of topics that were not asked about.
        first_s, all_s: From asking to the first and to the last that was waited for.
        ended: Why the connection ended meanwhile; "" where it did not.
    """

    digests: dict[str, str] = field(default_factory=dict)
    size_bytes: int = 0
    foreign: int = 0
    first_s: float = 0.0
    all_s: float = 0.0
    ended: str = ""


class ProbeClient:
    """One connection."""

    def __init__(self, access: Access, *, mqtt5: bool, deadline: float, receive_bytes: int = 0) -> None:
        """Connect.

        Args:
            deadline: ``time.monotonic()`` after which every wait of this client ends.
            receive_bytes: Size of the socket's receive buffer; 0 leaves it to the system.

        Raises:
            UnreachableError: No connection; says why.
            NotAllowedError: The broker answered and refused.
            TimedOutError: The deadline passed.
        """
        self._deadline = deadline
        self._where = f"broker {access.host}:{access.port}"
        self._answer: ReasonCode | None = None
        self._suback: list[ReasonCode] | None = None
        self._refused: dict[int, str] = {}
        self._ended = ""
        self._inbox: list[MQTTMessage] = []
        self._client = self._make(access, mqtt5=mqtt5, receive_bytes=receive_bytes)
        try:
            self._client.connect(access.host, access.port, keepalive=_KEEPALIVE_S)
            answer = self._await_answer()
        except (OSError, ssl.SSLError) as error:
            raise UnreachableError(f"{self._where}: {getattr(error, 'strerror', '') or error}") from error
        if answer is None:
            raise UnreachableError(f"{self._where}: the connection ended before an answer ({self._ended})")
        if answer.is_failure:
            raise NotAllowedError(f"{self._where}: refused the connection: {answer}")

    def _make(self, access: Access, *, mqtt5: bool, receive_bytes: int) -> Client:
        protocol = MQTTProtocolVersion.MQTTv5 if mqtt5 else MQTTProtocolVersion.MQTTv311
        client = Client(CallbackAPIVersion.VERSION2, access.client_id, protocol=protocol)
        client.tls_set_context(tls_context(access.ca, access.certificate, access.key))
        client.max_inflight_messages_set(_IN_FLIGHT)
        client.connect_timeout = max(0.1, min(10.0, self._deadline - time.monotonic()))

        def opened(_client: Client, _data: Any, sock: Any) -> None:  # noqa: ANN401 - paho's own types
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if receive_bytes:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)

        def connected(_client: Client, _data: Any, _flags: Any, code: ReasonCode, _properties: Any) -> None:  # noqa: ANN401
            self._answer = code

        def disconnected(_client: Client, _data: Any, _flags: Any, code: ReasonCode, _properties: Any) -> None:  # noqa: ANN401
            self._ended = str(code)

        def subscribed(_client: Client, _data: Any, _mid: int, codes: list[ReasonCode], _properties: Any) -> None:  # noqa: ANN401
            self._suback = codes

        def published(_client: Client, _data: Any, mid: int, code: ReasonCode, _properties: Any) -> None:  # noqa: ANN401
            if code.is_failure:
                self._refused[mid] = str(code)

        def arrived(_client: Client, _data: Any, message: MQTTMessage) -> None:  # noqa: ANN401
            self._inbox.append(message)

        client.on_socket_open = opened
        client.on_connect = connected
        client.on_disconnect = disconnected
        client.on_subscribe = subscribed
        client.on_publish = published
        client.on_message = arrived
        return client

    @property
    def tls(self) -> tuple[str, str]:
        """(version, cipher) of the connection."""
        sock = self._client.socket()
        cipher = sock.cipher() if isinstance(sock, ssl.SSLSocket) else None
        return (str(cipher[1]), str(cipher[0])) if cipher else ("none", "none")

    def publish(self, items: Mapping[str, bytes], *, qos: int = 1, retain: bool = True) -> dict[str, str]:
        """Publish all and wait for the broker's answers.

        Returns:
            Why, by topic, for those that the broker refused or did not answer because the connection ended.

        Raises:
            TimedOutError: The deadline passed.
        """
        self._refused = {}
        mids: dict[int, str] = {}
        waiting = []
        for topic, payload in items.items():
            info = self._client.publish(topic, payload, qos=qos, retain=retain)
            mids[info.mid] = topic
            waiting.append((topic, info))
            # No more in memory than the broker is given time for.
            while self._in_flight(waiting[-2 * _IN_FLIGHT :]) >= _IN_FLIGHT and not self._ended:
                self._step()
        while self._in_flight(waiting) and not self._ended:
            self._step()
        lost = {topic: self._ended for topic, info in waiting if self._ended and not self._is_out(info)}
        return lost | {mids[mid]: why for mid, why in self._refused.items() if mid in mids}

    def subscribe(self, filters: Sequence[str], qos: int, *, wait: bool = True) -> bool:
        """One SUBSCRIBE; whether all were granted (True too where the answer is not waited for)."""
        self._suback = None
        if self._client.protocol == MQTTProtocolVersion.MQTTv5:
            self._client.subscribe([(one, SubscribeOptions(qos)) for one in filters])
        else:
            self._client.subscribe([(one, qos) for one in filters])
        codes = self._await_suback() if wait else []
        return codes is not None and not any(code.is_failure for code in codes)

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """One UNSUBSCRIBE, not waited for."""
        self._client.unsubscribe(list(filters))

    def collect(self, topics: Collection[str], silence_s: float, most_bytes: int = 0) -> Arrived:
        """Read until all ``topics`` came, nothing came for ``silence_s``, ``most_bytes`` came, or the end.

        Raises:
            TimedOutError: The deadline passed.
        """
        wanted, found = set(topics), Arrived()
        began = last = time.monotonic()
        while wanted - found.digests.keys() and not (most_bytes and found.size_bytes >= most_bytes):
            if not self._inbox:
                if self._ended or time.monotonic() - last > silence_s:
                    break
                self._step()
                continue
            last = time.monotonic()
            for message in self._take():
                found.first_s = found.first_s or last - began
                found.size_bytes += len(message.payload)
                if message.topic in wanted:
                    found.digests[message.topic] = hashlib.sha256(message.payload).hexdigest()
                else:
                    found.foreign += 1
        found.all_s = last - began
        found.ended = self._ended
        return found

    def stall(self, seconds: float) -> None:
        """Do not read for a while."""
        time.sleep(max(0.0, min(seconds, self._deadline - time.monotonic())))

    def close(self) -> None:
        """End the connection."""
        self._client.disconnect()
        sock = self._client.socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()

    def _in_flight(self, waiting: Sequence[tuple[str, MQTTMessageInfo]]) -> int:
        return sum(not self._is_out(info) for _, info in waiting)

    def _is_out(self, info: MQTTMessageInfo) -> bool:
        try:
            return info.is_published()
        except (RuntimeError, ValueError) as error:  # paho's way to say that it was never sent
            self._ended = self._ended or str(error)
            return False

    def _await_answer(self) -> ReasonCode | None:
        while self._answer is None and not self._ended:
            self._step()
        return self._answer

    def _await_suback(self) -> list[ReasonCode] | None:
        while self._suback is None and not self._ended:
            self._step()
        return self._suback

    def _take(self) -> Iterator[MQTTMessage]:
        taken, self._inbox = self._inbox, []
        yield from taken

    def _step(self) -> None:
        if time.monotonic() > self._deadline:
            raise TimedOutError(f"{self._where}: the time for the check is over; give more with --timeout")
        code = self._client.loop(_STEP_S)
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS and not self._ended:
            self._ended = str(code)
