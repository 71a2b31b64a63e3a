"""Outcomes that nobody has heard, of a device that went on with the next medium before it had a link again.

Each is kept until an offer names it, as the outcome of the open update is. Blocking: call in a thread.
"""

import json
from pathlib import Path
from random import Random

import structlog

from device_client.agent.journal import Update
from device_client.config import TimingSection
from device_client.durable import read_capped, write_durably
from device_client.errors import DeviceError
from protocol.directives import Offer

log = structlog.get_logger(__name__)

MAX_UNTOLD = 16
"""Media that a device takes one after the other without a link; of more, the oldest outcome is lost."""
MAX_BYTES = 524_288
_LOG_CHARACTERS = 2_000


class Untold:
    """One device's, the oldest first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._times = 0
        self._due_at = 0.0
        self.outcomes: list[Update] = []

    def load(self) -> None:
        """Read the file; what cannot be read was never said, and is lost."""
        try:
            self.outcomes = [Update.model_validate(item) for item in json.loads(read_capped(self._path, MAX_BYTES))]
        except (DeviceError, ValueError, TypeError, RecursionError) as error:
            if self._path.exists():
                log.error("untold outcomes are damaged", why=str(error)[:200])

    def due(self, now: float, timing: TimingSection, random: Random) -> Update | None:
        """The next one to be told, one after the other, each round after a longer pause; ``now`` is monotonic."""
        if not self.outcomes or now < self._due_at:
            return None
        rounds, index = divmod(self._times, len(self.outcomes))
        pause_s = min(timing.readiness_level_s, timing.readiness_retry_s * 2 ** min(rounds, 16))
        self._times, self._due_at = self._times + 1, now + random.uniform(pause_s / 2, pause_s)
        return self.outcomes[index]

    def hurry(self) -> None:
        """A connection came or went: begin with the short pauses again."""
        self._times, self._due_at = 0, 0.0

    def add(self, update: Update) -> bool:
        """Keep an outcome; returns whether it is durable. Where it is not, nothing changed."""
        kept = update.model_copy(
            update={
                "log": update.log[-_LOG_CHARACTERS:],
                "offer": update.offer.model_copy(update={"key_wrap": None}),
                "heard": False,
            }
        )
        outcomes = [item for item in self.outcomes if item.offer.rollout != update.offer.rollout]
        for lost in outcomes[: len(outcomes) + 1 - MAX_UNTOLD]:
            log.warning("outcome given up untold", rollout_id=lost.offer.rollout, state=lost.state.value)
        return self._save([*outcomes, kept][-MAX_UNTOLD:])

    def hear(self, offer: Offer) -> bool:
        """Forget the outcome that an offer names, or lets be tried again; returns whether one was."""
        named = [item for item in self.outcomes if _names(offer, item)]
        if not named or not self._save([item for item in self.outcomes if item not in named]):
            return False
        self.hurry()
        return True

    def covers(self, offer: Offer) -> bool:
        """Whether what is offered is over here already."""
        return any(
            item.offer.rollout == offer.rollout and offer.attempt <= item.offer.attempt for item in self.outcomes
        )

    def knows(self, rollout: str) -> bool:
        """Whether an outcome of this rollout is kept."""
        return any(item.offer.rollout == rollout for item in self.outcomes)

    def _save(self, outcomes: list[Update]) -> bool:
        try:
            write_durably(self._path, json.dumps([item.model_dump(mode="json") for item in outcomes]).encode())
        except (DeviceError, OSError) as error:
            log.error("untold outcomes not stored", why=str(error)[:500])
            return False
        self.outcomes = outcomes
        return True


def _names(offer: Offer, update: Update) -> bool:
    """By its nonce and its outcome; or it asks for another attempt, and the former one is nobody's any more."""
    if offer.rollout != update.offer.rollout:
        return False
    heard = offer.heard.nonce == update.nonce and offer.heard.outcome is not None
    return heard or offer.attempt > update.offer.attempt
