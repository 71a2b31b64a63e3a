"""Takes a medium in: its files go through the same verifier as what a broker sends, and its chunks become a source.

What was taken is remembered, so that a device that is switched off in the middle goes on by itself, as far as it comes
without the medium.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog

from device_client.durable import read_capped, write_durably
from device_client.errors import ConflictError, DeviceError, UsageError
from device_client.medium import MAX_ROLLOUTS, Medium, read_medium
from device_client.refusals import Refusals
from device_client.verification.release import Verifier
from protocol.directives import Announcement, Offer
from protocol.errors import ProtocolError
from protocol.topics import RULES, Kind

log = structlog.get_logger(__name__)

MAX_NOTE_BYTES = 2 * MAX_ROLLOUTS * RULES[Kind.ANNOUNCE].max_bytes + 8192
MAX_PATH_CHARS = 4096


@dataclass(frozen=True, slots=True)
class HandedIn:
    """What became of a medium.

    Attributes:
        taken: The offers that were accepted, by rollout.
        refused: Why the others were not, by rollout; "" for the trust metadata.
    """

    taken: dict[str, Offer]
    refused: dict[str, str]


class MediumDesk:
    """One device's."""

    def __init__(
        self,
        device: str,
        verifier: Verifier,
        refusals: Refusals,
        take: Callable[[Offer | Announcement], Awaitable[None]],
        use_chunks: Callable[[Path], None],
        note: Path,
    ) -> None:
        """Make it.

        Args:
            take: Is handed what was accepted, announcements first.
            use_chunks: Told the folder that chunks can be read from.
            note: The file that remembers the medium.
        """
        self._device = device
        self._verifier = verifier
        self._refusals = refusals
        self._take = take
        self._use_chunks = use_chunks
        self._note = note
        self._one_at_a_time = asyncio.Lock()

    async def hand_in(self, path: Path) -> HandedIn:
        """Take in what a medium holds for this device.

        Raises:
            UsageError: The path is not absolute.
            NotFoundError, StorageError: It is no medium, or something on it is not as it must be; nothing changed.
            ConflictError: Nothing on it holds for this device now; says why.
        """
        if not path.is_absolute() or len(str(path)) > MAX_PATH_CHARS:
            raise UsageError(f"{str(path)[:200]}: expected an absolute path")
        async with self._one_at_a_time:
            medium = await asyncio.to_thread(read_medium, path, self._device)
            refused = await self._take_trust(medium)
            taken = {}
            for rollout, offer in medium.offers.items():
                why, accepted = await self._judge(rollout, medium.announcements[rollout], offer)
                if accepted is None:
                    refused[rollout] = why
                else:
                    taken[rollout] = accepted
            if not taken:
                raise ConflictError(f"{path}: nothing on it was taken: {'; '.join(refused.values())}")
            self._use_chunks(path)
            await asyncio.to_thread(self._remember, path, {r: medium.announcements[r] for r in taken})
        log.info("medium taken", path=str(path), rollouts=sorted(taken), refused=sorted(refused))
        return HandedIn(taken, refused)

    async def restore(self) -> None:
        """After a start, and when it is known which update is open: what was taken holds on, trust included.

        Its chunks are looked for where they were.
        """
        remembered = await asyncio.to_thread(self._remembered)
        if remembered is None:
            return
        path, announcements, at = remembered
        self._use_chunks(path)
        try:
            await asyncio.to_thread(self._verifier.recall, at)
        except (ProtocolError, DeviceError, OSError) as error:
            log.warning("trust not taken again", why=str(error)[:500])
        for rollout, raw in announcements.items():
            try:
                accepted = await asyncio.to_thread(
                    self._verifier.accept_announcement, rollout, raw.encode(errors="replace")
                )
            except (ProtocolError, DeviceError) as error:
                log.info("medium's announcement not taken again", rollout_id=rollout, why=str(error)[:500])
            else:
                await self._take(accepted.message)

    async def _take_trust(self, medium: Medium) -> dict[str, str]:
        """What is older than what is known, or has run out, is refused; offers are judged by what is believed then."""
        try:
            await asyncio.to_thread(self._verifier.refresh, medium.trust)
        except ProtocolError as error:
            self._refusals.add("", error)
            return {"": str(error)}
        self._refusals.accepted("")
        return {}

    async def _judge(self, rollout: str, announcement: bytes, offer: bytes) -> tuple[str, Offer | None]:
        why = ""
        try:
            announced = await asyncio.to_thread(self._verifier.accept_announcement, rollout, announcement)
            await self._take(announced.message)
        except ProtocolError as error:  # the device may know a newer one; it goes by that, then
            self._refusals.add(rollout, error)
            why = str(error)
        try:
            accepted = await asyncio.to_thread(self._verifier.accept_offer, rollout, offer)
        except ProtocolError as error:
            self._refusals.add(rollout, error)
            return str(error), None
        if not why:
            self._refusals.accepted(rollout)
        await self._take(accepted.message)
        return why, accepted.message

    def _remembered(self) -> tuple[Path, dict[str, str], datetime] | None:
        """The folder handed in last, announcements of media by rollout, and when the last was taken."""
        try:
            note = json.loads(read_capped(self._note, MAX_NOTE_BYTES))
            announcements = {str(rollout): str(raw) for rollout, raw in dict(note["announcements"]).items()}
            return Path(note["path"]), announcements, datetime.fromisoformat(note["at"])
        except (DeviceError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _remember(self, path: Path, announcements: dict[str, bytes]) -> None:
        """Beside those of media before it: the open update may be of one of them, and has no other lease."""
        remembered = self._remembered()
        texts = {r: raw for r, raw in (remembered[1] if remembered else {}).items() if r not in announcements}
        texts |= {rollout: raw.decode(errors="replace") for rollout, raw in announcements.items()}
        texts = dict(list(texts.items())[-MAX_ROLLOUTS:])
        note = {"path": str(path), "announcements": texts, "at": self._verifier.now().isoformat()}
        write_durably(self._note, json.dumps(note).encode())
