"""What to say to announcements before there is an offer: ready, or why not. Pure bookkeeping over judged gates.

A device answers every live announcement whose release fits it, on change and then ever more rarely, so that the engine
can offer to ready devices first. An answer costs nothing and binds nothing.
"""

from dataclasses import dataclass, field
from random import Random

from protocol.directives import Announcement
from protocol.reports import Reason


@dataclass
class _Said:
    key: tuple[object, ...] = ()
    nonce: str = ""
    repeats: int = 0
    next_at: float = 0.0


@dataclass
class Availability:
    """What was last said about each announced rollout.

    Attributes:
        retry_s: Base of the back-off between repetitions.
        level_s: The longest time between two repetitions.
    """

    retry_s: float
    level_s: float
    random: Random
    _said: dict[str, _Said] = field(default_factory=dict)

    def due(
        self, announcement: Announcement, reasons: list[Reason], *, ready: bool, nonce: str, now: float
    ) -> str | None:
        """The nonce to send readiness with now, or None when there is nothing new to say.

        Args:
            nonce: A fresh one, used when the answer changed.
            now: Monotonic seconds.
        """
        said = self._said.setdefault(announcement.rollout, _Said())
        key = (announcement.action, announcement.release.sha256, ready, tuple((r.gate, r.code) for r in reasons))
        if key != said.key:
            said.key, said.nonce, said.repeats = key, nonce, 0
        elif now < said.next_at:
            return None
        else:
            said.repeats += 1
        ceiling = min(self.level_s, self.retry_s * 2 ** min(said.repeats, 16))
        said.next_at = now + self.random.uniform(ceiling / 2, ceiling)
        return said.nonce

    def forget(self, rollout: str) -> None:
        """The rollout ended, or an offer took its place."""
        self._said.pop(rollout, None)

    def repeat_all(self, now: float) -> None:
        """Reports may have been lost: say everything again, spread over the base interval."""
        for said in self._said.values():
            said.next_at = now + self.random.uniform(0, self.retry_s)
            said.repeats = 0
