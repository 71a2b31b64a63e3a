"""Chunks from a mirror: kept connections, bounded answers, failures that cost time and never a wrong result."""

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from device_client.download.https_source import HttpsSource
from device_client.download.sources import Collected
from protocol.chunks import MAX_CIPHERTEXT_BYTES
from tests.certificates import Authority, free_ports
from tests.device_client.download.mirror import QUICK, Mirror, serving, some_chunks, source_of

SILENCE_S = 5.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The fleet's CA."""
    return Authority(tmp_path_factory.mktemp("ca") / "ca.pem", "ca")


@pytest.fixture
async def mirror(authority: Authority, tmp_path: Path) -> AsyncIterator[Mirror]:
    """A server with twenty chunks."""
    async with serving(Mirror(some_chunks(20)), authority, tmp_path) as made:
        yield made


@pytest.fixture
async def source(mirror: Mirror, authority: Authority) -> AsyncIterator[HttpsSource]:
    """A source of that server."""
    made = source_of(mirror.url, authority.path)
    yield made
    await made.release()


async def test_a_window_comes_whole_over_kept_connections(mirror: Mirror, source: HttpsSource) -> None:
    """All chunks of several windows, over no more connections than one window has; many requests are on their way."""
    cids = list(mirror.chunks)
    for start in range(0, 20, 10):
        part = cids[start : start + 10]
        collected = await source.collect(part, SILENCE_S)
        assert collected == Collected({cid: mirror.chunks[cid] for cid in part})
    assert mirror.connections <= 2
    assert mirror.at_once >= 4
    assert sorted(mirror.asked) == sorted(f"/ota/chunks/{cid}" for cid in cids)
    assert (source.name, source.trouble) == (mirror.url, "")


async def test_the_delay_of_the_link_is_measured(mirror: Mirror, source: HttpsSource) -> None:
    """From asking to the first sign of an answer, without the time that connecting takes; None where none came."""
    assert (await source.collect([], SILENCE_S)).delay_s is None
    delay_s = (await source.collect(list(mirror.chunks), SILENCE_S)).delay_s
    assert delay_s is not None and delay_s > 0


async def test_an_interrupted_window_hands_out_what_came(mirror: Mirror, source: HttpsSource) -> None:
    """A source that is left for another is not waited for any more."""
    cids = list(mirror.chunks)[:6]

    async def never(_writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    mirror.tricks[f"/ota/chunks/{cids[5]}"] = never
    task = asyncio.create_task(source.collect(cids, 60))
    async with asyncio.timeout(SILENCE_S):
        while len(mirror.asked) < 6:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        source.interrupt()
        assert set((await task).chunks) == set(cids[:5])


async def test_a_request_says_nothing_of_the_device(mirror: Mirror, source: HttpsSource) -> None:
    """Host, a general name, and that nothing is to be compressed; no cookie, no id."""
    await source.collect(list(mirror.chunks)[:1], SILENCE_S)
    names = {line.split(b":")[0].lower() for line in mirror.heads[0].splitlines()[1:] if line}
    assert names == {b"host", b"user-agent", b"accept-encoding"}
    assert b"User-Agent: flagship-device\r\n" in mirror.heads[0]


async def test_two_windows_at_once(mirror: Mirror, source: HttpsSource) -> None:
    """Each gets what is its own."""
    cids = list(mirror.chunks)
    one, two = await asyncio.gather(source.collect(cids[:10], SILENCE_S), source.collect(cids[10:], SILENCE_S))
    assert set(one.chunks) == set(cids[:10]) and set(two.chunks) == set(cids[10:])


@pytest.mark.parametrize("per_connection", [1, 3])
async def test_a_server_that_closes_after_some_answers(
    mirror: Mirror, source: HttpsSource, per_connection: int
) -> None:
    """What was asked for behind the last answer is asked for again; nothing counts as lost or as gone."""
    mirror.per_connection = per_connection
    assert set((await source.collect(list(mirror.chunks), SILENCE_S)).chunks) == set(mirror.chunks)
    assert source.is_ready


async def test_a_server_that_stands_one_request_at_a_time(mirror: Mirror, source: HttpsSource) -> None:
    """It hangs up on the first try, and is asked one by one from then on: all comes, and nothing counts as gone."""
    mirror.one_at_a_time = True
    assert set((await source.collect(list(mirror.chunks), SILENCE_S)).chunks) == set(mirror.chunks)
    assert source.is_ready
    connections = mirror.connections
    assert len((await source.collect(list(mirror.chunks), SILENCE_S)).chunks) == len(mirror.chunks)
    assert mirror.connections == connections


async def test_a_kept_connection_that_ended_meanwhile(mirror: Mirror, source: HttpsSource) -> None:
    """The server's patience with silent clients is over: another connection, and no failure."""
    cids = list(mirror.chunks)
    await source.collect(cids[:4], SILENCE_S)
    mirror.hang_up()
    await asyncio.sleep(0.05)
    assert set((await source.collect(cids[4:8], SILENCE_S)).chunks) == set(cids[4:8])
    assert source.is_ready


@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone", "403 Forbidden", "500 Oops", "204 No Content"])
async def test_a_chunk_that_is_not_there_is_lost(mirror: Mirror, source: HttpsSource, status: str) -> None:
    """The others come, and the mirror stays in use."""
    cids = list(mirror.chunks)
    mirror.trick(cids[3], status, b"" if "204" in status else b"an error page")
    collected = await source.collect(cids, SILENCE_S)
    assert (set(collected.chunks), collected.gone) == (set(cids) - {cids[3]}, False)
    assert source.is_ready


async def test_wrong_bytes_are_handed_on_and_judged_by_the_store(mirror: Mirror, source: HttpsSource) -> None:
    """A source gives what came; only the store knows what a chunk must be."""
    cid = next(iter(mirror.chunks))
    mirror.chunks[cid] = b"something else"
    assert (await source.collect([cid], SILENCE_S)).chunks == {cid: b"something else"}


@pytest.mark.parametrize("announced", [True, False])
async def test_what_is_larger_than_a_chunk_is_not_read(mirror: Mirror, source: HttpsSource, announced: bool) -> None:
    """By its announced length, or where none is announced after as much as a chunk has: bounded either way."""
    cids = list(mirror.chunks)

    async def too_much(writer: asyncio.StreamWriter) -> None:
        if announced:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % 2**40)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(100):
                writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                await writer.drain()

    mirror.tricks[f"/ota/chunks/{cids[2]}"] = too_much
    collected = await source.collect(cids, SILENCE_S)
    assert set(collected.chunks) == set(cids) - {cids[2]}
    assert source.received_bytes < 3 * MAX_CIPHERTEXT_BYTES


@pytest.mark.parametrize("encoding", ["gzip", "br"])
async def test_what_is_encoded_is_no_chunk(mirror: Mirror, source: HttpsSource, encoding: str) -> None:
    """Nobody asked for it: nothing is unpacked."""
    cid = next(iter(mirror.chunks))
    mirror.trick(cid, "200 OK", b"packed", f"Content-Encoding: {encoding}")
    assert await source.collect([cid], SILENCE_S) == Collected({})


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x" * 300_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"",
    ],
    ids=["ssh", "negative", "endless head", "two lengths", "nothing"],
)
async def test_what_is_no_http_makes_the_mirror_unready(mirror: Mirror, source: HttpsSource, garbage: bytes) -> None:
    """It is left alone for a while and then asked again; nothing was lost, for nothing was sent."""
    cids = list(mirror.chunks)

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(garbage)
        await writer.drain()
        writer.close()

    for cid in cids:
        mirror.tricks[f"/ota/chunks/{cid}"] = answer
    assert await source.collect(cids, SILENCE_S) == Collected({}, gone=True)
    assert "127.0.0.1" in source.trouble and source._failures > 0
    mirror.tricks.clear()
    async with asyncio.timeout(SILENCE_S):
        await source.ready()
    assert set((await source.collect(cids, SILENCE_S)).chunks) == set(cids)
    assert source.trouble == ""


async def test_a_chunk_that_is_cut_short_every_time_is_lost(mirror: Mirror, source: HttpsSource) -> None:
    """It is tried twice and given up; it does not hold up the others, and is not handed out."""
    cids = list(mirror.chunks)

    async def cut(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        await writer.drain()
        writer.transport.abort()

    mirror.tricks[f"/ota/chunks/{cids[5]}"] = cut
    async with asyncio.timeout(SILENCE_S):
        collected = await source.collect(cids, SILENCE_S)
    assert cids[5] not in collected.chunks
    assert collected.gone or set(collected.chunks) == set(cids) - {cids[5]}


async def test_silence_ends_a_window(mirror: Mirror, authority: Authority) -> None:
    """One chunk that never comes: those before it are handed out, the window is over after the silence."""
    cids = list(mirror.chunks)[:6]

    async def never(_writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    mirror.tricks[f"/ota/chunks/{cids[5]}"] = never
    source = source_of(mirror.url, authority.path)
    async with asyncio.timeout(SILENCE_S):
        collected = await source.collect(cids, 0.3)
    assert (set(collected.chunks), collected.gone) == (set(cids[:5]), False)
    await source.release()


async def test_a_mirror_that_never_says_a_word_is_gone(mirror: Mirror, source: HttpsSource) -> None:
    """Nothing of the whole window came: it was not the chunks that were lost."""

    async def never(_writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    cids = list(mirror.chunks)[:4]
    mirror.tricks = {f"/ota/chunks/{cid}": never for cid in cids}
    assert await source.collect(cids, 0.3) == Collected({}, gone=True)
    assert source._failures > 0 and "no answer in time" in source.trouble


async def test_a_chunk_that_drips_has_a_deadline(mirror: Mirror, authority: Authority) -> None:
    """Never silent and never done: that chunk is lost after its time, the others come."""
    cids = list(mirror.chunks)[:4]

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(100):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)

    mirror.tricks[f"/ota/chunks/{cids[1]}"] = drip
    source = source_of(mirror.url, authority.path, dataclasses.replace(QUICK, request_timeout_s=0.4))
    async with asyncio.timeout(SILENCE_S):
        collected = await source.collect(cids, 2)
    assert cids[1] not in collected.chunks
    assert cids[0] in collected.chunks
    await source.release()


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
@pytest.mark.parametrize(("asks", "at_most_s"), [("1", 1.5), ("999999", 3), ("soon", 1), ("-5", 1)])
async def test_a_busy_mirror_is_left_alone_as_long_as_it_asks(
    mirror: Mirror, authority: Authority, status: str, asks: str, at_most_s: float
) -> None:
    """In bounds: it cannot put itself out of use for ever. What did not come was not lost."""
    cid = next(iter(mirror.chunks))
    mirror.trick(cid, status, b"", f"Retry-After: {asks}")
    source = source_of(mirror.url, authority.path, dataclasses.replace(QUICK, retry_after_cap_s=2))
    assert await source.collect([cid], SILENCE_S) == Collected({}, gone=True)
    left_s = source._not_before - source._clock.monotonic()
    assert 0 < left_s <= at_most_s
    assert (left_s > 0.5) == asks.isdigit()
    assert "too busy" in source.trouble
    await source.release()


async def test_a_certificate_of_another_ca_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    """Not one request goes out, and the reason is told."""
    other = Authority(tmp_path / "other.pem", "other")
    source = source_of(mirror.url, other.path)
    assert await source.collect(list(mirror.chunks), SILENCE_S) == Collected({}, gone=True)
    assert mirror.asked == []
    assert "certificate is not accepted" in source.trouble


async def test_a_certificate_of_another_host_is_refused(mirror: Mirror, authority: Authority) -> None:
    """The name in the address decides."""
    source = source_of(mirror.url.replace("127.0.0.1", "localhost"), authority.path)
    assert (await source.collect(list(mirror.chunks), SILENCE_S)).gone
    assert mirror.asked == []


async def test_nobody_listens(authority: Authority) -> None:
    """Gone, told, and tried again after a while; nothing is asked meanwhile."""
    port, _ = free_ports()
    settings = dataclasses.replace(QUICK, retry_base_s=100, retry_cap_s=100)
    source = source_of(f"https://127.0.0.1:{port}", authority.path, settings)
    for _ in range(2):
        assert await source.collect(["0" * 64], SILENCE_S) == Collected({}, gone=True)
    assert "refused" in source.trouble and source._failures == 1


async def test_an_interface_that_does_not_exist(mirror: Mirror, authority: Authority) -> None:
    """The source is not ready, and says which."""
    source = source_of(mirror.url, authority.path, dataclasses.replace(QUICK, interface="none0"))
    assert not source.is_ready
    assert source.trouble == "interface none0: not there"
    assert (await source.collect(list(mirror.chunks), SILENCE_S)).gone
    assert mirror.connections == 0


async def test_an_interface_that_is_named_is_used(mirror: Mirror, authority: Authority) -> None:
    """Loopback reaches this server."""
    source = source_of(mirror.url, authority.path, dataclasses.replace(QUICK, interface="lo"))
    assert set((await source.collect(list(mirror.chunks), SILENCE_S)).chunks) == set(mirror.chunks)
    await source.release()


async def test_a_cancelled_window_leaves_nothing_open(mirror: Mirror, source: HttpsSource) -> None:
    """Its connections are closed; the next window begins anew."""
    cids = list(mirror.chunks)
    hold = asyncio.Event()

    async def wait(_writer: asyncio.StreamWriter) -> None:
        await hold.wait()

    mirror.tricks[f"/ota/chunks/{cids[0]}"] = wait
    task = asyncio.create_task(source.collect(cids[:1], SILENCE_S))
    async with asyncio.timeout(SILENCE_S):
        while not mirror.asked:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [line for line in source._lines._servers[source._origin].lines if line.may_ask] == []
    hold.set()
    assert len((await source.collect(cids[1:3], SILENCE_S)).chunks) == 2


async def test_an_address_that_this_machine_cannot_speak_to(
    mirror: Mirror, source: HttpsSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel without IPv6 and a name that has such an address: the next address is tried, nothing breaks."""
    loop = asyncio.get_running_loop()
    known = await loop.getaddrinfo("127.0.0.1", source._origin.port, type=socket.SOCK_STREAM)
    spoken = [(socket.AF_UNSPEC, socket.SOCK_STREAM, 0, "", ("::1", source._origin.port)), *known]

    async def both(*_words: object, **_more: object) -> object:
        return spoken

    monkeypatch.setattr(loop, "getaddrinfo", both)
    assert (await source.collect(list(mirror.chunks), SILENCE_S)).chunks == mirror.chunks
    del spoken[1:]
    await source.release()
    assert (await source.collect(list(mirror.chunks), SILENCE_S)).gone and "not supported" in source.trouble
