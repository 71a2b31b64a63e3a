"""Redirects: to https, near, and not for long."""

from pathlib import Path
from random import Random

import pytest

from device_client.download.https_line import Origin
from device_client.download.https_source import HttpsSource
from device_client.download.redirects import MAX_HOPS, Ask, redirected
from device_client.download.sources import Collected
from protocol.clock import SystemClock
from protocol.mqtt.tls import mirror_context
from tests.certificates import Authority
from tests.device_client.download.mirror import QUICK, Mirror, serving, some_chunks

HOME = Origin("mirror.example", 443)
ASK = Ask("c", HOME, "/ota/chunks/c")


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("/x", (HOME, "/x")),
        ("d", (HOME, "/ota/chunks/d")),
        ("https://mirror.example/y?sign=1", (HOME, "/y?sign=1")),
        ("https://mirror.example:8443", (Origin("mirror.example", 8443), "/")),
        ("//mirror.example/z", (HOME, "/z")),
        ("https://other.example/x", None),
        ("http://mirror.example/x", None),
        ("ftp://mirror.example/x", None),
        ("https://u:p@mirror.example/x", None),
        ("https://mirror.example:99999/x", None),
        ("https:///x", (HOME, "/x")),
        ("/a b", None),
        ("/\r\nHost: x", None),
        ("/\u00fc", None),
        ("/" + "x" * 5000, None),
        ("", None),
    ],
)
def test_where_a_redirect_leads(location: str, leads_to: tuple[Origin, str] | None) -> None:
    """On the same host by https and nowhere else."""
    onward = redirected(ASK, location, elsewhere=False)
    assert (onward and (onward.origin, onward.path)) == leads_to
    assert onward is None or (onward.cid, onward.hops) == ("c", 1)


def test_another_host_only_where_any_ca_will_do() -> None:
    """A mirror behind public certificates may hand over to its storage; still by https alone."""
    onward = redirected(ASK, "https://storage.example/c", elsewhere=True)
    assert onward is not None and onward.origin == Origin("storage.example", 443)
    assert redirected(ASK, "http://storage.example/c", elsewhere=True) is None


def test_three_redirects_are_enough() -> None:
    """A circle ends."""
    ask: Ask | None = ASK
    for hop in range(MAX_HOPS):
        assert ask is not None and ask.hops == hop
        ask = redirected(ask, "/again", elsewhere=False)
    assert ask is not None
    assert redirected(ask, "/again", elsewhere=False) is None


async def test_redirects_are_followed_in_bounds(tmp_path: Path) -> None:
    """On the same server; round in a circle, to plain HTTP, to nothing: those chunks are lost, the others come."""
    authority = Authority(tmp_path / "ca.pem", "ca")
    async with serving(Mirror(some_chunks(12)), authority, tmp_path) as mirror:
        cids = list(mirror.chunks)
        moved = mirror.chunks[cids[0]]
        mirror.trick(cids[0], "302 Found", b"moved", "Location: /ota/chunks/elsewhere")
        mirror.chunks["elsewhere"] = moved
        mirror.trick(cids[1], "301 Moved Permanently", b"", f"Location: {mirror.url}/chunks/{cids[1]}")
        mirror.trick(cids[2], "307 Temporary Redirect", b"", f"Location: http://127.0.0.1:{mirror.port}/x")
        mirror.trick(cids[3], "308 Permanent Redirect")
        source = HttpsSource(mirror.url, lambda _: mirror_context(authority.path), QUICK, SystemClock(), Random(1))
        collected = await source.collect(cids, 5)
        assert (set(collected.chunks), collected.gone) == (set(cids) - set(cids[1:4]), False)
        assert collected.chunks[cids[0]] == moved
        assert mirror.asked.count(f"/ota/chunks/{cids[1]}") == 1 + MAX_HOPS
        await source.release()


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_another_server_gets_no_certificate_of_the_device(tmp_path: Path, elsewhere: bool) -> None:
    """The mirror that was named sees who asks; where it sends the device to does not, if that is followed at all."""
    authority = Authority(tmp_path / "ca.pem", "ca")
    pair = (tmp_path / "device.pem", tmp_path / "device.key")
    authority.issue(*pair, "d1")
    chunks = some_chunks(6)
    async with (
        serving(Mirror(chunks), authority, tmp_path, ask_client=True) as storage,
        serving(Mirror(), authority, tmp_path, ask_client=True) as mirror,
    ):
        storage_host = storage.url if elsewhere else storage.url.replace("127.0.0.1", "localhost")
        for cid in chunks:
            mirror.trick(cid, "302 Found", b"", f"Location: {storage_host}/chunks/{cid}")
        context = lambda own: mirror_context(authority.path, pair if own else None)  # noqa: E731
        source = HttpsSource(mirror.url, context, QUICK, SystemClock(), Random(1))
        collected = await source.collect(list(chunks), 5)
        assert collected == (Collected(chunks) if elsewhere else Collected({}))
        assert len(mirror.client_names) == 1 and "d1" in mirror.client_names.pop()
        assert storage.client_names == set()
        assert (storage.connections > 0) == elsewhere
        await source.release()
