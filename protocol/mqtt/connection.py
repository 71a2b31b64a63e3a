"""One MQTT session over aiomqtt: TLS with certificates, will, bounded queues, checked answers, TCP_NODELAY.

aiomqtt does not reconnect, does not raise on a refused SUBACK or PUBACK and leaves sockets behind; all of that is
handled here and nowhere else. After ``ConnectionLost`` the caller waits (``backoff``) and makes a new session.
"""

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from aiomqtt import Client, MqttError, ProtocolVersion, Will
from paho.mqtt.reasoncodes import ReasonCode

from protocol.errors import FlagshipError
from protocol.mqtt.arrivals import Arrivals, Message
from protocol.mqtt.cancelling import leave_off, reset, whole
from protocol.mqtt.tls import TlsFilesError, tls_context

__all__ = [
    "ConnectionLost",
    "ConnectionSettings",
    "Message",
    "PublishRefused",
    "RequestRefused",
    "Session",
    "SubscribeRefused",
    "backoff",
    "connect",
]

_ERRNO = re.compile(r"^\[Errno -?\d+\] ")


class ConnectionLost(FlagshipError):  # noqa: N818 - it is a fact, not a mistake
    """There is no connection to the broker, or it ended."""


class RequestRefused(FlagshipError):  # noqa: N818
    """The broker refused a SUBSCRIBE or a PUBLISH."""


class SubscribeRefused(RequestRefused):
    """The broker refused a SUBSCRIBE. A clean SUBACK proves nothing either: mosquitto filters delivery."""


class PublishRefused(RequestRefused):
    """The broker refused a PUBLISH (MQTT 5 only; with 3.1.1 a refusal cannot be seen)."""


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How to reach one broker.

    Attributes:
        ca: Certificates that the broker's certificate must chain to.
        certificate, key: This side's identity.
        timeout_s: Of the connect and of every request.
        max_queued_incoming: Messages that wait to be read; overflow is counted and dropped, as a bad link would.
        check_time: False where this machine's clock is not believed: validity periods then do not count, everything
            else of the broker's certificate does.
        mqtt5: False for brokers that have only MQTT 3.1.1.
    """

    host: str
    port: int
    client_id: str
    ca: Path
    certificate: Path
    key: Path
    will: Will | None = None
    keepalive_s: int = 30
    timeout_s: float = 10.0
    max_inflight: int = 64
    max_queued_incoming: int = 1000
    mqtt5: bool = True
    check_time: bool = True


class Session:
    """A live connection. Made by ``connect``."""

    def __init__(self, client: Client, arrivals: Arrivals, settings: ConnectionSettings) -> None:
        self._client = client
        self._arrivals = arrivals
        self._settings = settings
        self._lost: ConnectionLost | None = None
        self._refused: dict[str, str] = {}  # why, by topic

    @property
    def dropped(self) -> int:
        """Messages that came faster than they were read."""
        return self._arrivals.dropped

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, timeout_s: float | None = None
    ) -> None:
        """Publish, and with QoS 1 wait for the broker's answer (which proves reception, not more).

        Raises:
            ConnectionLost: It may or may not have gone out.
            PublishRefused: The broker said so.
        """
        self._check()
        self._refused.pop(topic, None)  # of one that nobody waited for any more
        wait_s = timeout_s or self._settings.timeout_s
        try:
            await whole(self._client.publish(topic, payload, qos=qos, retain=retain, timeout=wait_s))
        except (MqttError, ValueError) as error:
            raise ConnectionLost(f"publish to {topic}: {error}") from error
        self._check()
        reason = self._refused.pop(topic, None)
        if reason is not None:
            raise PublishRefused(f"publish to {topic}: the broker answered {reason}")

    async def subscribe(self, filters: Sequence[tuple[str, int]], *, timeout_s: float | None = None) -> None:
        """One SUBSCRIBE for all filters.

        Args:
            timeout_s: For the SUBACK, which may come behind a lot else; else the connection's.

        Raises:
            ConnectionLost: No answer in time.
            SubscribeRefused: The broker refused one of them.
        """
        self._check()
        try:
            codes: Sequence[ReasonCode | int] = await whole(
                self._client.subscribe(list(filters), timeout=timeout_s or self._settings.timeout_s)
            )
        except MqttError as error:
            raise ConnectionLost(f"subscribe: {error}") from error
        for (topic_filter, _), code in zip(filters, codes, strict=False):
            if code.is_failure if isinstance(code, ReasonCode) else code >= 0x80:
                raise SubscribeRefused(f"subscribe to {topic_filter}: the broker answered {code}")

    async def unsubscribe(self, filters: Sequence[str], *, timeout_s: float | None = None) -> None:
        """One UNSUBSCRIBE for all filters.

        Raises:
            ConnectionLost: No answer in time.
        """
        self._check()
        try:
            await whole(self._client.unsubscribe(list(filters), timeout=timeout_s or self._settings.timeout_s))
        except MqttError as error:
            raise ConnectionLost(f"unsubscribe: {error}") from error

    async def messages(self) -> AsyncIterator[Message]:
        """What arrives, in order.

        Raises:
            ConnectionLost: When the connection ends, after what arrived before was handed out.
        """
        while True:
            for message in self.drain():
                yield message
            self._check()
            await self._arrivals.wait()

    def drain(self) -> Iterator[Message]:
        """What has arrived so far, without waiting."""
        while self._arrivals.messages:
            yield self._arrivals.messages.popleft()

    async def wait_lost(self) -> None:
        """Wait for the end of the connection, then raise ConnectionLost."""
        await self._watch()
        self._check()

    def _check(self) -> None:
        if self._lost:
            raise self._lost

    async def _watch(self) -> None:
        """Learn of the connection's end from aiomqtt."""
        try:
            async for _ in self._client.messages:
                pass
        except MqttError as error:
            self.end(str(error))

    def end(self, why: str) -> None:
        """Let everybody who uses this session see it as lost; the connection itself is closed by its block."""
        if self._lost is None:
            self._lost = ConnectionLost(f"broker {self._settings.host}:{self._settings.port}: {why}")
        self._arrivals.wake()
        for waiting in self._client._pending_publishes.values():  # noqa: SLF001 - aiomqtt lets them time out
            waiting.set()

    def abort(self, why: str) -> None:
        """End it here and now: what this machine has not sent yet is thrown away, and no answer is waited for."""
        reset(self._client)
        self.end(why)

    def _watch_pubacks(self) -> None:
        # aiomqtt drops the PUBACK's reason code, and tells no packet id: "Not authorized" would look like success.
        paho: Any = self._client._client  # noqa: SLF001
        send, answered, topics = paho.publish, paho.on_publish, dict[int, str]()

        def publish(topic: str, payload: bytes, qos: int, *rest: Any, **more: Any) -> Any:  # noqa: ANN401
            info = send(topic, payload, qos, *rest, **more)
            if qos:  # others are never answered
                topics[info.mid] = topic
            return info

        def hook(client: Any, userdata: Any, mid: int, code: Any, properties: Any) -> None:  # noqa: ANN401
            topic = topics.pop(mid, None)
            if topic is not None and getattr(code, "is_failure", False):
                self._refused[topic] = str(code)
            answered(client, userdata, mid, code, properties)

        paho.publish, paho.on_publish = publish, hook


@contextlib.asynccontextmanager
async def connect(settings: ConnectionSettings) -> AsyncIterator[Session]:
    """Connect once; the session ends with the block.

    Raises:
        ConnectionLost: No connection: the address, the certificates or the network.
    """
    try:
        context = await asyncio.to_thread(
            tls_context, settings.ca, settings.certificate, settings.key, check_time=settings.check_time
        )
    except TlsFilesError as error:
        raise ConnectionLost(str(error)) from error
    client = Client(
        settings.host,
        settings.port,
        identifier=settings.client_id,
        protocol=ProtocolVersion.V5 if settings.mqtt5 else ProtocolVersion.V311,
        clean_start=True if settings.mqtt5 else 3,  # 3: paho's "first only", as it defaults
        clean_session=None if settings.mqtt5 else True,
        will=settings.will,
        tls_context=context,
        keepalive=settings.keepalive_s,
        timeout=settings.timeout_s,
        max_queued_outgoing_messages=10_000,
        max_inflight_messages=settings.max_inflight,
        max_concurrent_outgoing_calls=settings.max_inflight,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    )
    arrivals = Arrivals(settings.max_queued_incoming)
    client._client.on_message = arrivals.take  # noqa: SLF001 - see there
    client.pending_calls_threshold = settings.max_inflight + 1
    try:
        await whole(client.__aenter__())
    except (MqttError, OSError, ssl.SSLError, ValueError) as error:
        client._client.disconnect()  # noqa: SLF001 - a failed CONNACK wait would keep socket and task
        raise ConnectionLost(f"broker {settings.host}:{settings.port}: {_ERRNO.sub('', str(error))}") from error
    except asyncio.CancelledError:
        leave_off(client)
        raise
    session = Session(client, arrivals, settings)
    session._watch_pubacks()  # noqa: SLF001
    watcher = asyncio.create_task(session._watch())  # noqa: SLF001
    try:
        yield session
    finally:
        watcher.cancel()
        session.end("closed")
        try:
            await asyncio.wait({watcher})  # not `await watcher`: our own cancellation would look like its
        finally:
            with contextlib.suppress(MqttError, asyncio.TimeoutError):
                await client.__aexit__(None, None, None)


def backoff(attempt: int, random: Random, base_s: float = 1.0, cap_s: float = 60.0) -> float:
    """Seconds to wait before the next attempt: full jitter below ``base x 2^attempt``, at least a tenth of the base."""
    ceiling = min(cap_s, base_s * 2.0 ** min(attempt, 32))
    return max(base_s / 10, random.uniform(0, ceiling))
