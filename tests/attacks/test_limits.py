"""X and S: endless, malformed and dripping input. Size is judged before form, form before anything else."""

import asyncio
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from device_client.inbox import MAX_UNPROVEN, MAX_WAITING
from protocol.errors import ErrorCode
from protocol.states import Phase, State
from protocol.topics import RULES, Kind
from tests.attacks.arena import Arena
from tests.attacks.catalogue import attack
from tests.attacks.forging import Plan, forge, payload
from tests.integration.small_fleet import installed, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
FLOOD = 400
MIB = 2**20


@contextmanager
def little_memory(most_bytes: int) -> Iterator[None]:
    """What runs in this process meanwhile, the victim's agent too, never holds more than this at once."""
    tracemalloc.start(1)
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
        assert peak < most_bytes, f"{peak} B were held at once"
    finally:
        tracemalloc.stop()


@attack("X1", "E_OVERSIZE")
async def test_x1_an_endless_timestamp(ground: Arena) -> None:
    """The genuine timestamp, followed by blanks that JSON allows: 3 KB where 2 KB are read."""
    async with ground.victim() as victim:
        before = victim.believes
        genuine = ground.metadata()["timestamp"]
        await ground.put(Kind.TRUST_TIMESTAMP, genuine + b" " * (3 * 1024 - len(genuine)))
        await ground.fails(victim, ErrorCode.OVERSIZE)
        assert victim.believes == before


@attack("X2", "E_OVERSIZE")
async def test_x2_an_endless_announcement(ground: Arena) -> None:
    """An announcement by a stolen director, blown up to 9 KB in a field that a newer version might have."""
    async with ground.victim() as victim:
        envelope = json.loads(ground.announcement("r-x2", ground.ref()))
        await ground.put(Kind.ANNOUNCE, json.dumps(envelope | {"note": "x" * 9_000}).encode(), rollout="r-x2")
        await ground.fails(victim, ErrorCode.OVERSIZE)
        assert "r-x2" not in victim.agent.runner.announcements
    await ground.put(Kind.ANNOUNCE, b"", rollout="r-x2")


@attack("X3", "E_OVERSIZE")
async def test_x3_a_zlib_bomb(ground: Arena) -> None:
    """A trust bundle of 50 KB that would unpack to 50 MB."""
    bomb = zlib.compress(b" " * (50 * MIB), 9)
    assert len(bomb) < RULES[Kind.TRUST_BUNDLE].max_bytes
    async with ground.victim() as victim:
        before = victim.believes
        with little_memory(8 * MIB):
            await ground.put(Kind.TRUST_BUNDLE, bomb)
            await ground.fails(victim, ErrorCode.OVERSIZE)
        assert "unpacked" in await ground.seen(victim, ErrorCode.OVERSIZE)
        assert victim.believes == before


@attack("X4", "E_CHUNK")
async def test_x4_a_chunk_longer_than_declared(ground: Arena) -> None:
    """Chunks go on after their declared end: one by a byte, one up to the largest message that a broker takes."""
    own = payload(ground, "6.3.0", 300_000)
    first, second = list(own.chunks)[:2]
    long = {first: own.chunks[first] + b"x", second: own.chunks[second].ljust(RULES[Kind.CHUNK].max_bytes, b"x")}
    async with ground.victim() as victim:
        (made,) = await forge(ground, victim, Plan("6.3.0", [own.artifact], {**own.chunks, **long}))
        await ground.order(victim, "r-x4", made.ref, key_wrap=made.wrap(victim))
        await until(lambda: victim.agent._refusals.counts[ErrorCode.CHUNK] >= 2, "both chunks are refused")
        await ground.fails(victim, ErrorCode.CHUNK)
        assert victim.stands(State.DOWNLOADING)


@attack("X5", "E_FORMAT and E_OVERSIZE, bounded memory")
async def test_x5_deep_json_and_a_flood_of_topics(ground: Arena) -> None:
    """JSON nested 10,000 deep as metadata and 4,000 deep as a message, and hundreds of retained announcements."""
    deep = zlib.compress(b'{"1.root.json":' + b"[" * 10_000 + b"]" * 10_000 + b"}")
    envelope = json.loads(ground.announcement("r-x5", ground.ref()))
    rollouts = [f"r-x5-{number}" for number in range(FLOOD)]
    await asyncio.gather(
        *(ground.put(Kind.ANNOUNCE, json.dumps(envelope | {"n": r}).encode(), rollout=r) for r in rollouts)
    )
    try:
        with little_memory(32 * MIB):
            async with ground.victim() as victim:
                await until(lambda: victim.refused(ErrorCode.SCOPE), "the flood is being judged")
                await ground.put(Kind.TRUST_BUNDLE, deep)
                await ground.put(Kind.ANNOUNCE, b"[" * 4_000 + b"]" * 4_000, rollout="r-x5")
                await ground.fails(victim, ErrorCode.FORMAT)
                await ground.fails(victim, ErrorCode.OVERSIZE)
                inbox = victim.agent.inbox
                assert len(inbox._announcements.waiting) <= MAX_WAITING
                assert len(inbox._announcements._unproven) <= MAX_UNPROVEN
                await ground.restore()
                await ground.order(victim, "r-x5-after", ground.ref())
                await until(lambda: victim.stands(State.WAITING, Phase.INSTALL), "the agent goes on")
                assert installed(victim.home) == "1.0.0"
    finally:
        await asyncio.gather(*(ground.put(Kind.ANNOUNCE, b"", rollout=r) for r in [*rollouts, "r-x5"]))


@asynccontextmanager
async def dripping(port: int, bytes_s: int) -> AsyncIterator[int]:
    """A way to the broker that lets nothing through faster than this towards the device; yields its port."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, block: int, pause_s: float) -> None:
        try:
            while data := await reader.read(block):
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(pause_s)
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        up, down = forward(reader, far_writer, 65_536, 0), forward(far_reader, writer, bytes_s // 20, 0.05)
        await asyncio.gather(up, down)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@attack("S1", "E_SLOW, the next broker is tried")
async def test_s1_slow_retrieval(ground: Arena) -> None:
    """Somebody on the way to a device's first broker lets its chunks through at 40 KB/s: never silent, never done."""
    floor = {"min_rate_bytes_s": 150_000, "slow_window_s": 0.5}
    async with (
        dripping(ground.fleet.settings.broker.device_port, 40_000) as port,
        ground.victim(through=port, download=floor) as victim,
    ):
        before = victim.agent._reporter._number
        await ground.order(victim, "r-s1", ground.ref())
        await ground.fails(victim, ErrorCode.SLOW)
        runner = victim.agent.runner
        await until(
            lambda: runner.update is not None and runner.update.phase is Phase.INSTALL, "the other broker has it"
        )
        assert victim.agent._reporter._number > before, "it came by another connection"
        assert installed(victim.home) == "1.0.0"
