"""M3, M4, B and E: releases that do not belong together, parts that never come, and what is done to ciphertexts."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from device_client import identity
from device_client.agent.journal import Journal, Update
from device_client.config import DeviceHome
from device_client.floors_file import FloorsFile
from device_client.installers.directory import DirectoryInstaller
from device_client.service import Agent
from device_client.verification.files import check_tree
from orchestrator.publisher.packing import pack
from protocol.clock import SystemClock
from protocol.directives import Offer
from protocol.encryption import wrap_key
from protocol.envelopes import b64
from protocol.errors import ErrorCode
from protocol.manifest import Artifact
from protocol.states import Phase, State
from protocol.topics import Kind
from protocol.trust.floors import Floors, higher
from tests.attacks.arena import Arena, Victim
from tests.attacks.catalogue import attack
from tests.attacks.forging import Plan, forge, payload
from tests.integration.small_fleet import installed, make_tree, until
from tests.power_cuts import dies_at

pytestmark = pytest.mark.asyncio(loop_scope="module")


# M ------------------------------------------------------------------------------------------------------------------


@attack("M3", "E_SOFTWARE")
async def test_m3_a_part_of_another_release(ground: Arena) -> None:
    """A thief of the release keys lists a release that has, beside the device's component, one of another release."""
    own, other = payload(ground, "6.0.0"), payload(ground, "5.0.0", component="os")
    async with ground.victim() as victim:
        plan = Plan("6.0.0", [own.artifact, other.artifact], {**own.chunks, **other.chunks})
        (made,) = await forge(ground, victim, plan)
        await ground.order(victim, "r-m3", made.ref, key_wrap=made.wrap(victim))
        await ground.fails(victim, ErrorCode.SOFTWARE)


@attack("M4", "E_SOFTWARE")
async def test_m4_requirements_are_not_met(ground: Arena) -> None:
    """A stolen director orders a signed release on a device that lacks what the release needs."""
    own = payload(ground, "6.0.1")
    async with ground.victim() as victim:
        (made,) = await forge(ground, victim, Plan("6.0.1", [own.artifact], own.chunks, {"requires": {"os": "9.0.0"}}))
        await ground.order(victim, "r-m4", made.ref, key_wrap=made.wrap(victim))
        await ground.fails(victim, ErrorCode.SOFTWARE)
        assert not list(victim.home.staging.iterdir()), "nothing was fetched"


# B ------------------------------------------------------------------------------------------------------------------


@attack("B1", "nothing is installed, all of it or none")
async def test_b1_a_chunk_is_withheld(ground: Arena) -> None:
    """The broker gives a device every chunk of a release but one, for as long as it likes."""
    async with ground.victim() as victim:
        source = victim.agent._source
        deliver, withheld = source.deliver, dict[str, bytes]()

        def withhold(cid: str, data: bytes) -> None:
            if len(data) > 20_000 and (not withheld or cid in withheld):
                withheld[cid] = data
            else:
                deliver(cid, data)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(source, "deliver", withhold)
            await ground.roll_out("r-b1", victim)
            await until(lambda: len(withheld) == 1, "the chunk was asked for")
            said = await ground.seen(victim, "% have come")
            assert "downloading" in said
            assert victim.stands(State.DOWNLOADING)
            assert installed(victim.home) == "1.0.0"
            assert len(list(victim.home.releases.glob("[0-9]*"))) == 1, "nothing of it was written as a release"
        await ground.fleet.until_state("r-b1", "completed")
        assert installed(victim.home) == "1.1.0", "with the last chunk it is whole"


@attack("B2", "wholly the old or wholly the new version, and the floors load")
async def test_b2_the_power_is_cut_at_every_change_of_the_disk(disk: Path, victim_offer: Offer) -> None:
    """Somebody with a hand on the switch cuts the power before any change of the disk, from floors to slot switch."""
    template = disk / "template"
    home = DeviceHome(template)
    home.create()
    slots(home).install_factory(make_tree(disk, "1.0.0", 1000), "1.0.0")
    tree = make_tree(disk, "1.1.0", 1000)
    artifact = pack(tree, "app", os.urandom(32), lambda _cid, _data: None).artifact
    stream = disk / "stream"
    stream.write_bytes(b"".join((tree / entry.path).read_bytes() for entry in artifact.files))
    floors(home).save(Floors(counters={"app": 1}))
    for number in range(500):
        place = DeviceHome(disk / "cut")
        shutil.copytree(template, place.path, symlinks=True)
        cut = dies_at(number, place.path, lambda: update(place, stream, artifact, victim_offer))  # noqa: B023
        running = slots(place).running()
        assert running is not None
        assert running.version in ("1.0.0", "1.1.0")
        if running.version == "1.1.0":
            check_tree(running.path, artifact)
        assert (place.current / "version").read_text() == f"{running.version}\n"
        found = floors(place).load()
        assert found is not None
        assert found.counters["app"] in ((1, 5) if cut else (5,))
        Journal(place.journal).load()
        update(place, stream, artifact, victim_offer)
        assert installed(place) == "1.1.0", "the update ends when it is repeated"
        shutil.rmtree(place.path)
        if not cut:
            assert number > 40, "few changes were counted"
            return
    pytest.fail("the update never ended")


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder in memory where there is one: what counts is the order of changes, not how long a disk takes."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture
def victim_offer() -> Offer:
    """An offer for a journal to remember."""
    values = {
        "fleet": "f", "rollout": "r", "device": "d", "issued": "2026-11-25T00:00:00Z", "grant": "download", "seq": 1,
        "expires": "2026-11-26T00:00:00Z", "epoch": 1,
        "release": {"path": "p/1.1.0/manifest", "length": 1, "sha256": "6" * 64, "counter": 5},
    }  # fmt: skip
    return Offer.model_validate(values)


def slots(home: DeviceHome) -> DirectoryInstaller:
    """The installer of a home."""
    return DirectoryInstaller(home.releases, home.current, home.installer)


def floors(home: DeviceHome) -> FloorsFile[Floors]:
    """Its floors."""
    return FloorsFile(home.state, Floors, higher)


def update(home: DeviceHome, stream: Path, artifact: Artifact, offer: Offer) -> None:
    """Everything that an update writes once its bytes are there, in the agent's order; safe to repeat."""
    journal, installer = Journal(home.journal), slots(home)
    installing = Update(offer=offer, boot_id="b", state=State.INSTALLING, version="1.1.0")
    journal.save(installing)
    if installed(home) != "1.1.0":
        installer.install(stream, artifact, "1.1.0", "6" * 64)
        journal.save(installing.model_copy(update={"state": State.ACTIVATING}))
        installer.activate()
    journal.save(installing.model_copy(update={"state": State.COMMITTING}))
    installer.commit()
    floors(home).save(Floors(counters={"app": 5}))
    journal.save(None)


# E ------------------------------------------------------------------------------------------------------------------


@attack("E1", "E_CHUNK before decrypting, and before writing")
async def test_e1_ciphertexts_are_tampered_with(ground: Arena) -> None:
    """Who holds the broker flips a bit of one chunk, puts one in the place of another, and cuts a third short."""
    own = payload(ground, "6.1.0", 700_000)
    first, second, third = list(own.chunks)[:3]
    bad = {
        first: own.chunks[first][:-1] + bytes([own.chunks[first][-1] ^ 1]),
        second: own.chunks[first],
        third: own.chunks[third][:-1],
    }
    async with ground.victim() as victim:
        (made,) = await forge(ground, victim, Plan("6.1.0", [own.artifact], {**own.chunks, **bad}))
        await ground.order(victim, "r-e1", made.ref, key_wrap=made.wrap(victim))
        await until(lambda: victim.agent._refusals.counts[ErrorCode.CHUNK] >= 3, "three chunks are refused")
        await ground.fails(victim, ErrorCode.CHUNK)
        assert victim.stands(State.DOWNLOADING)
        stream = (victim.home.staging / f"{own.artifact['sha256']}.stream").read_bytes()
        lengths = [row[4] for row in own.artifact["chunks"]]
        for place in range(3):
            start = sum(lengths[:place])
            assert not any(stream[start : start + lengths[place]]), "nothing of a refused chunk is written"
        for cid in bad:
            await ground.put(Kind.CHUNK, own.chunks[cid], cid=cid)
        await until(lambda: victim.stands(State.WAITING, Phase.INSTALL), "with the right bytes it goes on")


@attack("E2", "E_KEY")
async def test_e2_a_content_key_for_somebody_else(ground: Arena) -> None:
    """A stolen director sends the right content key, wrapped for another device, another release, and another key."""
    own = payload(ground, "6.1.1")
    async with ground.victim() as bystander, ground.victim() as victim:
        (made,) = await forge(ground, victim, Plan("6.1.1", [own.artifact], own.chunks))
        key, digest = identity.load_content_key(victim.home).public_key(), made.ref.sha256
        stranger = X25519PrivateKey.generate().public_key()
        wraps = [
            made.wrap(bystander),
            b64(wrap_key(made.cek, key, release=digest, device=bystander.name)),
            b64(wrap_key(made.cek, key, release=ground.ref("1.0.5").sha256, device=victim.name)),
            b64(wrap_key(made.cek, stranger, release=digest, device=victim.name)),
        ]
        refused = victim.agent._refusals.counts
        for attempt, wrap in enumerate(wraps, 1):
            await ground.order(victim, "r-e2", made.ref, key_wrap=wrap, attempt=attempt)
            await until(lambda a=attempt: refused[ErrorCode.KEY] == a, f"wrap {attempt} is refused")  # type: ignore[misc]
            await until(lambda: victim.stands(State.FAILED), "that ends the attempt")
        await ground.fails(victim, ErrorCode.KEY)
        await ground.order(victim, "r-e2", made.ref, key_wrap=made.wrap(victim), attempt=len(wraps) + 1)
        await until(lambda: victim.stands(State.WAITING, Phase.INSTALL), "its own wrap opens it")


@attack("E3", "E_KEY")
async def test_e3_a_manifest_under_another_key(ground: Arena) -> None:
    """The wrap is the device's own and names the release, but the manifest was sealed under another content key."""
    own = payload(ground, "6.2.0")
    async with ground.victim() as victim:
        (made,) = await forge(ground, victim, Plan("6.2.0", [own.artifact], own.chunks))
        key = identity.load_content_key(victim.home).public_key()
        wrap = b64(wrap_key(os.urandom(32), key, release=made.ref.sha256, device=victim.name))
        await ground.order(victim, "r-e3", made.ref, key_wrap=wrap)
        await ground.fails(victim, ErrorCode.KEY)


@attack("E5", "found by its hash, fetched again, accepted")
async def test_e5_bytes_on_the_device_are_changed(ground: Arena) -> None:
    """Somebody at the device changes bytes that it has fetched and verified, while its agent does not run."""
    async with ground.victim(download={"rate_limit_bytes_s": 150_000, "window": 1, "max_window": 1}) as victim:
        await ground.roll_out("r-e5", victim)
        await until(lambda: _present(victim) > 0, "some of it has come")
        assert victim.stands(State.DOWNLOADING)
        victim.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await victim.task
        (stream,) = victim.home.staging.glob("*.stream")
        wanted = stream.name.partition(".")[0]
        at = next(at for at, byte in enumerate(stream.read_bytes()) if byte)
        with stream.open("r+b") as file:
            file.seek(at)
            file.write(b"not what was signed")
        victim.agent = Agent(victim.home, victim.agent.settings, SystemClock())
        victim.task = asyncio.create_task(victim.agent.run())
        done = asyncio.create_task(ground.fleet.until_state("r-e5", "completed"))
        found: set[str] = set()
        while not done.done():
            with contextlib.suppress(OSError):
                found.add(hashlib.sha256(stream.read_bytes()).hexdigest())
            await asyncio.sleep(0.02)
        await done
        assert wanted in found, "what was staged in the end is what was signed"
        assert "succeeded" in await ground.explained(victim)
        assert installed(victim.home) == "1.1.0"


def _present(victim: Victim) -> int:
    streams = any(victim.home.staging.glob("*.stream"))
    last = victim.agent._fetcher.last
    return last.present_bytes if last and streams else 0
