"""From an offer to verified bytes: real keys, real metadata, a real sealed manifest; and what each lie is called."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from device_client.agent.journal import Update
from protocol.errors import ErrorCode, FlagshipError, ProtocolError
from protocol.states import State
from tests.device_client.lab import Lab, SealedRelease, open_below


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A device that runs 1.0.0."""
    made = Lab(tmp_path / "home")
    made.factory()
    return made


def _update(lab: Lab, release: SealedRelease, **changes: Any) -> Update:
    return Update(offer=lab.offer(release, **changes), state=State.DOWNLOADING)


async def _fetch(lab: Lab, update: Update) -> int:
    async with asyncio.timeout(10):
        return await lab.fetcher.fetch(update)


async def test_everything_is_staged(lab: Lab) -> None:
    """The stream lies verified in staging, and the bytes that came over the network are counted."""
    release = lab.publish(files={"a": b"one" * 100, "b": b"two" * 100})
    lab.refresh()
    update = _update(lab, release, seq=9)
    fetched = await _fetch(lab, update)
    assert fetched == sum(len(data) for data in release.chunks.values())
    target = lab.verifier.check(release.ref)
    artifact, stream = lab.fetcher.staged(update, target)
    assert artifact == release.artifact
    assert stream.read_bytes() == b"one" * 100 + b"two" * 100
    lab.shelf.asked = 0
    assert await _fetch(lab, update) == fetched, "of this update, in both runs"
    assert lab.shelf.asked == 0, "what is there is not fetched again"


async def test_no_descriptor_is_left_open(lab: Lab) -> None:
    """A device fetches for years in one process, resumes each transfer many times, and may host many agents."""
    release = lab.publish()
    lab.refresh()
    update = _update(lab, release)
    await _fetch(lab, update)
    for _ in range(5):
        lab.fetcher.clear()
        await _fetch(lab, update)
    assert open_below(lab.home.staging) == []


async def test_a_cancelled_fetch_leaves_nothing_open(lab: Lab) -> None:
    """A hold in mid-transfer closes what was open, and what was staged is taken up again."""
    release = lab.publish(files={"a": b"one" * 100, "b": b"two" * 100})
    lab.refresh()
    update = _update(lab, release)
    lab.shelf.withheld = set(list(release.chunks)[:1])
    task = asyncio.create_task(lab.fetcher.fetch(update))
    while lab.shelf.asked < 4:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert open_below(lab.home.staging) == []
    lab.shelf.withheld = set()
    await _fetch(lab, update)
    assert lab.fetcher.last
    assert lab.fetcher.last.present_bytes == release.artifact.length


async def test_a_stream_that_rots_on_the_disk_is_fetched_again(lab: Lab) -> None:
    """What was written and damaged since is found by its hash, not installed."""
    release = lab.publish(files={"a": b"one" * 100, "b": b"two" * 100})
    lab.refresh()
    update = _update(lab, release)
    await _fetch(lab, update)
    _, stream = lab.fetcher.staged(update, lab.verifier.check(release.ref))
    data = bytearray(stream.read_bytes())
    data[0] ^= 1
    stream.write_bytes(data)
    assert await _fetch(lab, update) > 0
    assert stream.read_bytes() == b"one" * 100 + b"two" * 100


@pytest.mark.parametrize("wrap", [None, "", "!", "é", "QUJD", "other"])
async def test_a_key_that_is_not_ours(lab: Lab, wrap: str | None) -> None:
    """No key, no base64, too short, or wrapped for another device: E_KEY, whatever it was."""
    release = lab.publish()
    lab.refresh()
    key_wrap = lab.wrap(release, "d2") if wrap == "other" else wrap
    with pytest.raises(ProtocolError) as error:
        await _fetch(lab, _update(lab, release, key_wrap=key_wrap))
    assert error.value.code is ErrorCode.KEY


async def test_a_manifest_that_calls_itself_otherwise(lab: Lab) -> None:
    """What is inside the seal must be what the offline keys listed it as."""
    release = lab.publish(inside="9.9.9")
    lab.refresh()
    with pytest.raises(FlagshipError, match=r"9\.9\.9") as error:
        await _fetch(lab, _update(lab, release))
    assert isinstance(error.value, ProtocolError)
    assert error.value.code is ErrorCode.MISMATCH


async def test_a_release_for_another_component(lab: Lab) -> None:
    """A release that has nothing for this device's component is refused by name."""
    release = lab.publish(component="mcu")
    lab.refresh()
    with pytest.raises(ProtocolError, match="mcu") as error:
        await _fetch(lab, _update(lab, release))
    assert error.value.code is ErrorCode.SOFTWARE


async def test_a_withdrawn_release_is_not_fetched(lab: Lab) -> None:
    """The offline keys are asked at the start of every transfer."""
    release = lab.publish()
    lab.refresh()
    del lab.repository.releases.targets[release.ref.path]
    lab.repository.bump()
    lab.refresh()
    with pytest.raises(ProtocolError) as error:
        await _fetch(lab, _update(lab, release))
    assert error.value.code is ErrorCode.NOT_RELEASED
    assert lab.shelf.asked == 0


async def test_progress_and_wants_go_up(lab: Lab) -> None:
    """A transfer says how far it is, and names chunks that did not come twice; refusals reach the agent."""
    release = lab.publish(files={"a": b"one" * 100, "b": b"two" * 100})
    lab.refresh()
    line = lab.connect()
    tampered = next(cid for cid in release.chunks if cid not in lab.verifier.check(release.ref).info.pieces)
    good, lab.shelf.chunks[tampered] = lab.shelf.chunks[tampered], b"not it"
    task = asyncio.create_task(_fetch(lab, _update(lab, release)))
    while not lab.refused:
        await asyncio.sleep(0.001)
    lab.shelf.chunks[tampered] = good
    await task
    assert lab.refused[0][0] is ErrorCode.CHUNK
    assert {cid for report in line.reports("want") for cid in report["cids"]} == {tampered}
    assert line.reports("progress")[0]["rollout"] == "r"


async def test_a_hint_that_cannot_be_sent_costs_nothing(lab: Lab) -> None:
    """Progress is a hint: a line that breaks in any way does not end the transfer."""
    release = lab.publish()
    lab.refresh()
    lab.connect().failure = RuntimeError("a bug below")
    await _fetch(lab, _update(lab, release))
