"""How many wrong tokens an address may try. Pure but for the clock's reading passed in.

A client with a token that was revoked sends the same one again and again: that is no new guess, and locks nobody out
who comes from the same address. Nor does a guesser lock out a token that opened the door before.
"""

from collections import OrderedDict
from enum import Enum, auto

MAX_FAILURES = 30
WINDOW_S = 60.0
MAX_ADDRESSES = 1_000
MAX_FAMILIAR = 1_000


class Verdict(Enum):
    """What to do with a token."""

    JUDGE = auto()
    REFUSE = auto()  # it is known to be wrong
    WAIT = auto()  # too many others were


class FailureLimit:
    """At most ``most`` different wrong tokens of one address are judged in any ``window_s``."""

    def __init__(self, most: int = MAX_FAILURES, window_s: float = WINDOW_S) -> None:
        self._most = most
        self._window_s = window_s
        self._failures: OrderedDict[str, OrderedDict[str, float]] = OrderedDict()
        self._familiar: OrderedDict[str, None] = OrderedDict()

    def ask(self, address: str, token: str, now_s: float) -> Verdict:
        """Whether to judge a token now.

        Args:
            token: Its digest.
            now_s: A monotonic clock.
        """
        failures = self._recent(address, now_s)
        if token in failures:
            return Verdict.REFUSE
        return Verdict.WAIT if len(failures) >= self._most and token not in self._familiar else Verdict.JUDGE

    def wait_s(self, address: str, now_s: float) -> float:
        """Seconds until one more may be judged."""
        failures = self._recent(address, now_s)
        if len(failures) < self._most:
            return 0.0
        return next(iter(failures.values())) + self._window_s - now_s

    def failed(self, address: str, token: str, now_s: float) -> None:
        """It was judged, and is wrong."""
        self.closed(token)
        failures = self._failures.setdefault(address, OrderedDict())
        self._failures.move_to_end(address)
        failures[token] = now_s
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)

    def opened(self, token: str) -> None:
        """It was judged, and is right."""
        self._familiar[token] = None
        self._familiar.move_to_end(token)
        if len(self._familiar) > MAX_FAMILIAR:
            self._familiar.popitem(last=False)

    def closed(self, token: str) -> None:
        """It opens nothing any more: from here on it is one like the others."""
        self._familiar.pop(token, None)

    def _recent(self, address: str, now_s: float) -> OrderedDict[str, float]:
        failures = self._failures.get(address)
        if failures is None:
            return OrderedDict()
        while failures and now_s - next(iter(failures.values())) >= self._window_s:
            failures.popitem(last=False)
        if not failures:
            del self._failures[address]
        return failures
