"""Light devices: what an agent does on the wire, and a hash of what came; one blocking TLS socket each, in a thread.

They cost little, so that the servers are what is measured. All of them insist on TLS 1.3 and tell the cipher.
"""

import hashlib
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
TIMEOUT_S = 60.0
CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 1, 2, 3, 4, 8, 9, 10, 11


@dataclass(frozen=True, slots=True)
class Identity:
    """Certificates of one device."""

    ca: Path
    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """TLS 1.3 with both sides' certificates."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(str(self.certificate), str(self.key))
        return context


class Line:
    """A TLS connection that is read in exact amounts."""

    def __init__(self, port: int, identity: Identity) -> None:
        plain = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = identity.context().wrap_socket(plain, server_hostname="127.0.0.1")
        self._kept = b""

    @property
    def cipher(self) -> str:
        """Version and cipher suite."""
        found = self._socket.cipher()
        return f"{self._socket.version()} {found[0] if found else ''}"

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._socket.sendall(data)

    def receive(self, count: int) -> bytearray:
        """Exactly ``count`` bytes."""
        data = bytearray(count)
        kept, self._kept = self._kept[:count], self._kept[count:]
        data[: len(kept)] = kept
        view, filled = memoryview(data), len(kept)
        while filled < count:
            got = self._socket.recv_into(view[filled:], count - filled)
            if not got:
                raise ConnectionError("the server closed the connection")
            filled += got
        return data

    def receive_until(self, end: bytes, most: int = 16_384) -> bytes:
        """Up to and with ``end``; what came behind it is kept."""
        data = self._kept
        while end not in data:
            part = self._socket.recv(16_384)
            if not part or len(data) > most:
                raise ConnectionError("the server's answer has no end")
            data += part
        head, _, self._kept = data.partition(end)
        return head

    def close(self) -> None:
        """Close it."""
        self._socket.close()


class MqttDevice:
    """MQTT 5 as the agent's client speaks it."""

    def __init__(self, port: int, identity: Identity, client_id: str) -> None:
        self.line = Line(port, identity)
        self._id = 0
        self.line.send(_packet(CONNECT << 4, _text("MQTT") + b"\x05\x02\x00\x3c\x00" + _text(client_id)))
        kind, body = self._read()
        if kind >> 4 != CONNACK or body[1]:
            raise ConnectionError(f"{client_id}: the broker answered {bytes(body[:2])!r}")

    def subscribe(self, topics: Sequence[str], done: Sequence[str] = ()) -> None:
        """One SUBSCRIBE, and with it the UNSUBSCRIBE of the window before; answers are left to ``take``."""
        wanted = b"".join(_text(topic) + b"\x01" for topic in topics)
        data = _packet(SUBSCRIBE << 4 | 2, self._next_id() + b"\x00" + wanted)
        self.line.send(data + self._unsubscribe(done))

    def unsubscribe(self, topics: Sequence[str]) -> None:
        """One UNSUBSCRIBE."""
        self.line.send(self._unsubscribe(topics))

    def publish(self, topic: str, payload: bytes) -> None:
        """QoS 1; the PUBACK is left to ``answered``."""
        self.line.send(_packet(PUBLISH << 4 | 2, _text(topic) + self._next_id() + b"\x00", len(payload)) + payload)

    def answered(self) -> None:
        """Wait for a PUBACK."""
        while self._read()[0] >> 4 != PUBACK:
            pass

    def take(self) -> tuple[str, memoryview]:
        """The next PUBLISH, acknowledged: topic and payload."""
        while True:
            kind, body = self._read()
            if kind >> 4 != PUBLISH:
                continue
            size = int.from_bytes(body[:2], "big")
            at = 2 + size
            if kind & 6:
                self.line.send(bytes((PUBACK << 4, 2)) + body[at : at + 2])
                at += 2
            return body[2 : 2 + size].decode(), memoryview(body)[at + 1 + body[at] :]

    def fetch(self, sizes: Mapping[str, int], window: int, window_bytes: int) -> int:
        """Fetch topics by windows, as the agent does; each payload's hash is the end of its topic. Returns bytes."""
        total = 0
        done: list[str] = []
        for topics in windows(sizes, window, window_bytes):
            self.subscribe(topics, done)
            awaited = set(topics)
            while awaited:
                topic, payload = self.take()
                if hashlib.sha256(payload).hexdigest() != topic.rpartition("/")[2]:
                    raise ValueError(f"{topic}: its hash is not its name")
                awaited.discard(topic)
                total += len(payload)
            done = topics
        self.unsubscribe(done)
        return total

    def close(self) -> None:
        """Close the connection."""
        self.line.close()

    def _unsubscribe(self, topics: Sequence[str]) -> bytes:
        if not topics:
            return b""
        return _packet(UNSUBSCRIBE << 4 | 2, self._next_id() + b"\x00" + b"".join(map(_text, topics)))

    def _next_id(self) -> bytes:
        self._id = self._id % 65_535 + 1
        return self._id.to_bytes(2, "big")

    def _read(self) -> tuple[int, bytearray]:
        kind, length, shift = self.line.receive(1)[0], 0, 0
        while True:
            byte = self.line.receive(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return kind, self.line.receive(length)


class RangeDevice:
    """HTTP/1.1 over one kept connection, one range at a time."""

    def __init__(self, port: int, identity: Identity) -> None:
        self.line = Line(port, identity)

    def get(self, path: str, start: int, length: int) -> bytearray:
        """One range of a file."""
        head = f"GET /{path} HTTP/1.1\r\nHost: localhost\r\nRange: bytes={start}-{start + length - 1}\r\n\r\n"
        self.line.send(head.encode())
        answer = self.line.receive_until(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 206"):
            raise ConnectionError(f"{path}: the server answered {answer[:60]!r}")
        return self.line.receive(length)

    def close(self) -> None:
        """Close the connection."""
        self.line.close()


def windows(sizes: Mapping[str, int], most: int, most_bytes: int) -> list[list[str]]:
    """Cut into windows of at most ``most`` and ``most_bytes``."""
    cut: list[list[str]] = [[]]
    size = 0
    for topic, length in sizes.items():
        if cut[-1] and (len(cut[-1]) == most or size + length > most_bytes):
            cut.append([])
            size = 0
        cut[-1].append(topic)
        size += length
    return cut


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Run all of them, each in a thread of its own."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def _packet(head: int, body: bytes, more: int = 0) -> bytes:
    length, size = bytearray(), len(body) + more
    while True:
        size, rest = divmod(size, 128)
        length.append(rest | (128 if size else 0))
        if not size:
            return bytes((head,)) + bytes(length) + body


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data
