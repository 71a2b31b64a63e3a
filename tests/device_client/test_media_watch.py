"""A stick that is put in is taken once, and again when it is another one."""

import shutil
from pathlib import Path

import pytest

from device_client.config_network import MediaSection
from device_client.media_watch import MAX_PLACES, MediaWatch
from protocol.directives import Offer
from tests.device_client.lab import DEVICE
from tests.device_client.media import Site, make_medium


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """One device; its media are put below another folder."""
    made = Site(tmp_path)
    (tmp_path / "media").mkdir()
    return made


def _watch(site: Site) -> MediaWatch:
    return MediaWatch(MediaSection(directories=(f"{site.path}/media/*",)), DEVICE, site.desk)


def _offers(site: Site) -> int:
    return sum(isinstance(message, Offer) for message in site.taken)


async def test_a_stick_that_is_put_in_is_taken_once(site: Site) -> None:
    """Not again while it stays; again when it was away, or was made anew."""
    watch, place = _watch(site), site.path / "media" / "stick"
    await watch.look()
    shutil.copytree(site.stick, place)
    for _ in range(3):
        await watch.look()
    assert (_offers(site), site.folders) == (1, [place])
    shutil.rmtree(place)
    await watch.look()
    make_medium(place, site.lab, site.release)
    await watch.look()
    assert _offers(site) == 2


async def test_other_folders_are_left_alone(site: Site) -> None:
    """No medium, or none for this device; one that is odd keeps nothing from the others."""
    (site.path / "media" / "music").mkdir()
    make_medium(site.path / "media" / "other", site.lab, site.release)
    (site.path / "media" / "other" / "offer" / DEVICE).rename(site.path / "media" / "other" / "offer" / "d9")
    make_medium(site.path / "media" / "broken", site.lab, site.release)
    (site.path / "media" / "broken" / "trust" / "timestamp.json").unlink()
    (site.path / "media" / "broken" / "trust" / "timestamp.json").symlink_to("/etc/passwd")
    shutil.copytree(site.stick, site.path / "media" / "stick")
    await _watch(site).look()
    assert site.folders == [site.path / "media" / "stick"]


async def test_a_crowd_of_folders_is_not_looked_through(site: Site) -> None:
    """There is a bound on one round."""
    for number in range(2 * MAX_PLACES):
        (site.path / "media" / f"{number}" / "offer" / DEVICE).mkdir(parents=True)
    watch = _watch(site)
    await watch.look()
    assert len(watch._seen) == MAX_PLACES


async def test_where_no_place_is_named_nothing_is_watched(site: Site) -> None:
    """It ends at once; a relative place is a mistake in the settings."""
    await MediaWatch(MediaSection(), DEVICE, site.desk).run()
    with pytest.raises(ValueError, match="directories"):
        MediaSection(directories=("media/*",))
