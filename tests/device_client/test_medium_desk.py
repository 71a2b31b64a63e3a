"""A medium's words are taken once and for all, remembered over a restart, and refused as a broker's would be.

The attacks that a medium in foreign hands allows are in ``tests/attacks/test_media.py``.
"""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from device_client.errors import NotFoundError, UsageError
from protocol.directives import Announcement, Offer
from protocol.errors import ErrorCode, ProtocolError
from tests.device_client.lab import DEVICE
from tests.device_client.media import LIFE, Site, make_medium, offline_announcement, offline_offer, write_medium


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """One device, one medium."""
    return Site(tmp_path)


async def test_a_medium_brings_all_that_a_link_would(site: Site) -> None:
    """A device that never heard a broker verifies trust, takes announcement and offer, and knows where chunks are."""
    handed = await site.desk.hand_in(site.stick)
    assert list(handed.taken) == ["r"] and handed.refused == {}
    assert [type(message) for message in site.taken] == [Announcement, Offer]
    assert site.folders == [site.stick]
    assert site.lab.verifier.check(site.release.ref).info.version == "1.1.0"
    assert site.refusals.counts == {}


async def test_the_same_medium_twice(site: Site) -> None:
    """It changes nothing, and is no error: a person may have pulled it out too early."""
    await site.desk.hand_in(site.stick)
    handed = await site.desk.hand_in(site.stick)
    assert list(handed.taken) == ["r"] and site.refusals.counts == {}


async def test_an_offer_of_another_rollout(site: Site) -> None:
    """Under a name that is not its own: E_SCOPE, for both halves."""
    for folder in ("announce", f"offer/{DEVICE}"):
        (site.stick / folder / "r.json").rename(site.stick / folder / "q.json")
    await site.refuses(ErrorCode.SCOPE)


async def test_forged_words(site: Site) -> None:
    """Signed by somebody, not by the director: E_SIGNATURE."""
    for name, message in (
        ("announce/r.json", offline_announcement(site.lab, site.release)),
        (f"offer/{DEVICE}/r.json", offline_offer(site.lab, site.release)),
    ):
        (site.stick / name).write_bytes(site.lab.signed(message, "snapshot"))
    await site.refuses(ErrorCode.SIGNATURE)


async def test_a_refused_medium_is_not_remembered(site: Site) -> None:
    """Nothing is looked for on it after a restart."""
    (site.stick / "offer" / DEVICE / "r.json").write_bytes(b"{}")
    await site.refuses(ErrorCode.FORMAT)
    await site.new_desk().restore()
    assert site.folders == []


async def test_a_restart_goes_on_with_the_medium(site: Site) -> None:
    """Its announcement is the lease; without it a device that was switched off would wait for a link."""
    await site.desk.hand_in(site.stick)
    announced = site.taken[0]
    site.taken.clear()
    (site.stick / "announce" / "r.json").unlink()
    await site.new_desk().restore()
    assert site.taken == [announced]
    assert site.folders == [site.stick, site.stick]


async def test_a_restart_after_a_second_medium(site: Site) -> None:
    """The update of the first one is open still, and its lease holds; chunks are looked for on the second."""
    await site.desk.hand_in(site.stick)
    lab, release = site.lab, site.release
    announcement = lab.signed(offline_announcement(lab, release).model_copy(update={"rollout": "s"}))
    offer = lab.signed(offline_offer(lab, release).model_copy(update={"rollout": "s"}))
    second = write_medium(site.path / "second", lab.repository.files(), announcement, offer, {}, rollout="s")
    await site.desk.hand_in(second)
    announced = [message for message in site.taken if isinstance(message, Announcement)]
    site.taken.clear()
    await site.new_desk().restore()
    assert [message.rollout for message in announced] == ["r", "s"] and site.taken == announced
    assert site.folders[-1] == second


async def test_a_restart_after_the_trust_ran_out(site: Site) -> None:
    """What was taken while it was fresh holds on for the open update, after a restart too; nothing new is taken."""
    stick = make_medium(site.path / "long", site.lab, site.release, timedelta(days=20))
    await site.desk.hand_in(stick)
    announced, offer = site.taken
    site.taken.clear()
    site.lab.clock.advance(8 * 86_400)
    site.lab.verifier = site.lab.new_verifier()
    site.lab.verifier.unasked_until = lambda: offer.offline_until
    await site.new_desk().restore()
    assert site.taken == [announced]
    assert site.lab.verifier.check(site.release.ref).info.version == "1.1.0"
    site.lab.verifier.unasked_until = lambda: None
    with pytest.raises(ProtocolError, match="E_FREEZE"):
        site.lab.verifier.check(site.release.ref)


async def test_a_restart_after_its_time(site: Site) -> None:
    """What has expired is not taken again; a note that is damaged is no note."""
    await site.desk.hand_in(site.stick)
    site.taken.clear()
    site.lab.clock.advance(LIFE.total_seconds() + 1)
    await site.new_desk().restore()
    assert site.taken == []
    for damaged in (b"{", b"[]", json.dumps({"path": 1}).encode()):
        (site.lab.home.state / "medium.json").write_bytes(damaged)
        await site.new_desk().restore()
    assert site.taken == []


async def test_a_path_must_be_whole(site: Site) -> None:
    """The agent has another working directory than the person."""
    with pytest.raises(UsageError, match="absolute"):
        await site.desk.hand_in(Path("stick"))
    with pytest.raises(NotFoundError):
        await site.desk.hand_in(Path("/nowhere"))
