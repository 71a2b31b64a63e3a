"""How much came over metered links today, remembered over restarts.

What is written down is ahead of what was spent, by a small share of the day's limit: a cut never makes bytes free, and
the disk hears of them at most some tens of times a day.
"""

import asyncio
from datetime import UTC, date
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from device_client.durable import read_capped, write_durably
from device_client.errors import DeviceError, NotFoundError
from protocol.clock import Clock

log = structlog.get_logger(__name__)

MAX_FILE_BYTES = 1024
SHARE = 64
"""The file is ahead by this part of the day's limit."""
LEAST_AHEAD = 65_536


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    day: date
    spent_bytes: int = Field(ge=0, le=2**60)


class MeteredBytes:
    """One day's allowance. Days are those of UTC, by the clock that the device believes."""

    def __init__(self, file: Path, per_day: int, clock: Clock) -> None:
        """Read what was spent; ``per_day`` 0 means that there is no limit. Blocking."""
        self._file = file
        self._per_day = per_day
        self._clock = clock
        self._ahead = max(LEAST_AHEAD, per_day // SHARE)
        self._writing = asyncio.Lock()
        kept = self._load() if per_day else None
        self._day = kept.day if kept else self._today()
        self._spent = self._written = kept.spent_bytes if kept else 0

    @property
    def is_used_up(self) -> bool:
        """Whether nothing more may come over metered links today."""
        if not self._per_day:
            return False
        self._turn()
        return self._spent >= self._per_day

    @property
    def says(self) -> str:
        """For people: what was spent of what, and when there is more."""
        self._turn()
        return f"{self._spent} B of today's {self._per_day} B over metered links are spent; more after midnight UTC"

    def spend(self, size_bytes: int) -> None:
        """So much came over a metered link; ``keep`` makes it durable."""
        self._turn()
        self._spent += size_bytes

    async def keep(self, *, exactly: bool = False) -> None:
        """Write down what was spent where the file is not ahead any more.

        Args:
            exactly: Nothing more comes at present: the file says what was spent and no more.
        """
        if not self._per_day:
            return
        async with self._writing:
            if exactly and self._written == self._spent:
                return
            if not exactly and self._spent + self._ahead // 2 <= self._written:
                return
            day, amount = self._day, self._spent + (0 if exactly else self._ahead)
            content = _Kept(day=day, spent_bytes=amount).model_dump_json().encode()
            try:
                await asyncio.to_thread(write_durably, self._file, content)
            except DeviceError as error:
                log.warning("metered bytes not kept", why=str(error)[:500])
                return
            if day == self._day:
                self._written = amount

    def _turn(self) -> None:
        """A new day has nothing spent; a clock that went back has everything of the later day."""
        today = self._today()
        if today > self._day:
            self._spent = self._written = 0
        self._day = today

    def _today(self) -> date:
        return self._clock.now().astimezone(UTC).date()

    def _load(self) -> _Kept | None:
        """What the file says; one that is damaged says that all is spent."""
        try:
            kept = _Kept.model_validate_json(read_capped(self._file, MAX_FILE_BYTES))
        except NotFoundError:
            return None
        except (ValidationError, DeviceError) as error:
            log.warning("metered bytes unknown", file=str(self._file), why=type(error).__name__)
            return _Kept(day=self._today(), spent_bytes=self._per_day)
        return kept
