"""O: a medium in foreign hands, and devices without a link. The device is real, nobody is there to hear it."""

import asyncio
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from device_client.agent.journal import Update
from device_client.download.directory_source import DirectorySource
from device_client.download.source_set import SourceSet
from device_client.errors import StorageError
from device_client.gate_keeper import GateKeeper
from device_client.transfer import Fetcher
from protocol.directives import Action, Announcement, Offer
from protocol.errors import ErrorCode, ProtocolError
from protocol.states import Phase, State
from tests.attacks.catalogue import attack
from tests.device_client.lab import DEVICE, until
from tests.device_client.media import Site, make_medium, offline_announcement, offline_offer, write_medium


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """One device, one medium."""
    return Site(tmp_path)


@attack("O1", "E_SCOPE")
async def test_o1_another_devices_offer(site: Site) -> None:
    """Somebody renames the offer on a medium so that another device takes it."""
    offer = offline_offer(site.lab, site.release).model_copy(update={"device": "d2"})
    (site.stick / "offer" / DEVICE / "r.json").write_bytes(site.lab.signed(offer))
    await site.refuses(ErrorCode.SCOPE)


@attack("O2", "E_EXPIRED")
async def test_o2_a_medium_past_its_time(site: Site) -> None:
    """A medium is kept and handed in after the time that it was made for."""
    stick = make_medium(site.path / "short", site.lab, site.release, timedelta(hours=1))
    site.lab.clock.advance(3601)
    site.stick = stick
    await site.refuses(ErrorCode.EXPIRED)


@attack("O3", "E_FREEZE")
async def test_o3_trust_that_has_run_out(site: Site) -> None:
    """A medium is kept until a newer release may have come out: its trust has run out, its offer has not."""
    site.lab.clock.advance(8 * 86_400)
    site.stick = write_medium(
        site.path / "late",
        site.lab.repository.files(),
        site.lab.signed(offline_announcement(site.lab, site.release)),
        site.lab.signed(offline_offer(site.lab, site.release)),
        {},
    )
    await site.refuses(ErrorCode.FREEZE, ErrorCode.WITHHELD)


@attack("O4", "E_ROLLBACK_METADATA, judged by the newer trust")
async def test_o4_older_trust(site: Site) -> None:
    """A medium with metadata that still lists a release which newer metadata, known to the device, does not."""
    site.lab.refresh()
    old = site.lab.repository.files()
    del site.lab.repository.releases.targets[site.release.ref.path]
    newer = site.lab.publish("1.2.0")
    site.lab.repository.bump()
    site.lab.refresh()
    for name, data in old.items():
        (site.stick / "trust" / name).write_bytes(data)
    handed = await site.desk.hand_in(site.stick)
    assert handed.refused[""].startswith("E_ROLLBACK_METADATA")
    with pytest.raises(ProtocolError, match="E_NOT_RELEASED"):
        site.lab.verifier.check(site.release.ref)
    assert site.lab.verifier.check(newer.ref).info.version == "1.2.0"


@attack("O5", "E_REPLAY")
async def test_o5_a_medium_from_before_a_halt(site: Site) -> None:
    """A medium from before a halt is handed to a device that has heard of the halt."""
    site.lab.refresh()
    hold = site.lab.announcement(site.release, Action.HOLD)
    site.lab.verifier.accept_announcement("r", site.lab.signed(hold))
    site.lab.verifier.accept_offer("r", site.lab.signed(site.lab.offer(site.release)))
    await site.refuses(ErrorCode.REPLAY)
    assert site.taken == []


@attack("O6", "E_ROLLBACK_RELEASE")
async def test_o6_a_release_below_the_counter(site: Site) -> None:
    """An old, authentic medium brings a release that is below the security counter by now."""
    await site.desk.hand_in(site.stick)
    site.lab.verifier.committed("app", 1)
    with pytest.raises(ProtocolError, match="E_ROLLBACK_RELEASE"):
        site.lab.verifier.check(site.release.ref)


@attack("O7", "E_CHUNK, read again until it is right")
async def test_o7_a_changed_chunk(site: Site) -> None:
    """Somebody changes a chunk on a medium."""
    await site.desk.hand_in(site.stick)
    offer = next(message for message in site.taken if isinstance(message, Offer))
    (cid, good) = next((cid, data) for cid, data in site.release.chunks.items() if len(data) < 200)
    (site.stick / "chunks" / cid).write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    refused: list[ErrorCode] = []
    fetching = asyncio.create_task(_fetcher(site, refused).fetch(Update(offer=offer, state=State.DOWNLOADING)))
    await until(lambda: bool(refused))
    assert set(refused) == {ErrorCode.CHUNK} and not fetching.done()
    (site.stick / "chunks" / cid).write_bytes(good)
    async with asyncio.timeout(10):
        await fetching


@attack("O8", "not followed, not opened, not read")
@pytest.mark.parametrize("what", ["link", "pipe", "huge"])
async def test_o8_odd_files(site: Site, what: str, tmp_path: Path) -> None:
    """A medium holds a link to a file of the device, a pipe that blocks its reader, or a file without end."""
    place = site.stick / "offer" / DEVICE / "r.json"
    secret = tmp_path / "secret"
    secret.write_bytes(place.read_bytes())
    place.unlink()
    match what:
        case "link":
            place.symlink_to(secret)
        case "pipe":
            os.mkfifo(place)
        case _:
            with place.open("wb") as file:
                file.truncate(1 << 40)
    with pytest.raises(StorageError):
        async with asyncio.timeout(5):
            await site.desk.hand_in(site.stick)
    assert site.taken == []


@attack("O9", "E_UNSAFE where the owner does not allow it; no lease for a device with a link")
async def test_o9_a_medium_where_it_does_not_belong(site: Site) -> None:
    """A stolen director, or who found a medium, uses its long orders on devices that are asked before they act."""
    await site.desk.hand_in(site.stick)
    announcement, offer = site.taken
    assert isinstance(announcement, Announcement) and isinstance(offer, Offer)
    asked = offer.model_copy(update={"offline_until": None})
    assert await _shut(site, announcement, asked, allow_offline=True) == ["lease"]
    assert await _shut(site, announcement, offer, allow_offline=False) == ["e_unsafe"]
    assert await _shut(site, announcement, offer, allow_offline=True) == []


@attack("O10", "none: it installs until the medium's time is over")
async def test_o10_a_halt_that_nobody_could_tell(site: Site) -> None:
    """A medium from before a halt is handed to a device that has no link: by design it is not protected."""
    site.lab.announcement(site.release, Action.HOLD)  # signed and published; this device has no link
    assert list((await site.desk.hand_in(site.stick)).taken) == ["r"]


async def _shut(site: Site, announcement: Announcement, offer: Offer, *, allow_offline: bool) -> list[str]:
    gates = site.lab.settings.gates.model_copy(update={"allow_offline": allow_offline})
    settings = site.lab.settings.model_copy(update={"gates": gates})
    keeper = GateKeeper([], settings, site.lab.verifier, {"r": announcement})
    return [reason.code for reason in (await keeper.judge("r", site.release.ref, Phase.INSTALL, offer)).reasons]


@dataclass(frozen=True)
class _Stick:
    """Nothing but a medium."""

    path: Path

    async def present(self) -> SourceSet:
        """The medium alone."""
        return SourceSet.of(DirectorySource(self.path), Random(1))


def _fetcher(site: Site, refused: list[ErrorCode]) -> Fetcher:
    lab = site.lab
    return Fetcher(
        lab.home.staging,
        lab.settings,
        DEVICE,
        lambda: [lab.content_key],
        lab.verifier,
        _Stick(site.stick),
        lab.reporter,
        lambda code, _detail: refused.append(code),
        Random(1),
    )
