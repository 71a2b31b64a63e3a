"""A medium as ``flagship rollout offline`` writes it, made of a lab's repository and keys, and a device to take it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from device_client.errors import ConflictError
from device_client.medium_desk import MediumDesk
from device_client.refusals import Refusals
from protocol.directives import Announcement, Offer
from protocol.errors import ErrorCode
from tests.device_client.lab import DEVICE, Lab, SealedRelease

LIFE = timedelta(days=5)


def offline_offer(lab: Lab, release: SealedRelease, life: timedelta = LIFE) -> Offer:
    """The next offer, for a medium."""
    until = lab.clock.now() + life
    return lab.offer(release, offline_until=until, expires=until)


def offline_announcement(lab: Lab, release: SealedRelease, life: timedelta = LIFE) -> Announcement:
    """The next announcement, for a medium."""
    until = lab.clock.now() + life
    return lab.announcement(release, offline_until=until, expires=until)


def write_medium(
    path: Path,
    trust: Mapping[str, bytes],
    announcement: bytes,
    offer: bytes,
    chunks: Mapping[str, bytes],
    device: str = DEVICE,
    rollout: str = "r",
) -> Path:
    """Put it on the disk."""
    files = {f"trust/{name}": data for name, data in trust.items()}
    files |= {f"chunks/{cid}": data for cid, data in chunks.items()}
    files |= {f"announce/{rollout}.json": announcement, f"offer/{device}/{rollout}.json": offer}
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def make_medium(path: Path, lab: Lab, release: SealedRelease, life: timedelta = LIFE) -> Path:
    """A good one, as trust is now."""
    announcement = lab.signed(offline_announcement(lab, release, life))
    offer = lab.signed(offline_offer(lab, release, life))
    return write_medium(path, lab.repository.files(), announcement, offer, release.chunks)


@dataclass
class Site:
    """A device without a link, and a medium for it."""

    path: Path
    taken: list[Offer | Announcement] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lab = Lab(self.path / "home", {"gates": {"allow_offline": True}})
        self.lab.factory()
        self.release = self.lab.publish()
        self.refusals = Refusals(self.lab.clock)
        self.stick = make_medium(self.path / "stick", self.lab, self.release)
        self.desk = self.new_desk()

    def new_desk(self) -> MediumDesk:
        """As after a start."""
        return MediumDesk(
            DEVICE,
            self.lab.verifier,
            self.refusals,
            self.take,
            self.folders.append,
            self.lab.home.state / "medium.json",
        )

    async def take(self, message: Offer | Announcement) -> None:
        """What the machine is handed."""
        await asyncio.sleep(0)
        self.taken.append(message)

    async def refuses(self, *codes: ErrorCode) -> None:
        """Nothing is taken, and these are the reasons that the operator will hear."""
        with pytest.raises(ConflictError, match="nothing on it was taken"):
            await self.desk.hand_in(self.stick)
        assert not [message for message in self.taken if isinstance(message, Offer)]
        assert self.folders == []
        assert set(self.refusals.counts) == {code.value for code in codes}
