"""The TUF client workflow (TUF 5) by python-tuf, over files that came from topics and a given reference time.

MQTT has no negative answer, so a set of files stands for the repository: what is not in it is absent. The set that
was verified last is stored durably and fills in what a new set lacks, so re-verification works offline. Floors are
not kept here: python-tuf's cache can be wiped, and what it then accepts is judged in ``floors.py``.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tuf.api import exceptions as tuf_errors
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from protocol.errors import ErrorCode, TrustError
from protocol.trust.trusted import Trusted, holds, timestamp_keys, translate

MAX_ROOT_ROTATIONS = 256
"""From the root that a device was enrolled with: python-tuf walks the whole chain each time."""
_BASE = "topics:///"
_STORED = "verified.json"
_LIMITS = UpdaterConfig(
    max_root_rotations=MAX_ROOT_ROTATIONS,
    max_delegations=4,
    root_max_length=16_384,
    timestamp_max_length=2_048,
    snapshot_max_length=16_384,
    targets_max_length=196_608,
    prefix_targets_with_hash=False,
)


@dataclass(frozen=True, slots=True)
class Recovery:
    """By which instant expiry is judged instead, once root no longer lists all of these timestamp keys (TUF 5.3.11).

    Online keys moved the receiver's clock floor; when they turn out to be stolen and are replaced, so is the floor.
    """

    timestamp_keys: str
    now: datetime


class TrustStore:
    """The repository as one receiver knows it, in a directory of its own."""

    def __init__(self, directory: Path, root: bytes) -> None:
        self._directory = directory
        self._root = root

    def refresh(
        self,
        files: Mapping[str, bytes],
        now: datetime,
        products: tuple[str, ...] = (),
        recovery: Recovery | None = None,
    ) -> Trusted:
        """Verify the newest state that ``files`` and what is stored make up. Blocking: call in a thread.

        Args:
            files: What the topics hold; may be empty, then the stored state is verified again.
            now: The instant by which all expiry is judged.
            products: Load the releases of these products too.
            recovery: What holds when the timestamp's keys were replaced.

        Raises:
            TrustError: What was stored stays as it was; the code names the attack.
        """
        fetcher = _FilesFetcher({**self._stored(), **files})
        try:
            trusted = refresh_from(fetcher, _BASE, self._directory / "tuf", self._root, now, recovery)
            for product in products:
                trusted.release(f"{product}/-/-")
            self._store(fetcher.files, trusted)
        except OSError as error:
            raise TrustError(ErrorCode.SPACE, f"trust store {self._directory}: {error.strerror}") from error
        return trusted

    def _stored(self) -> dict[str, bytes]:
        try:
            data = json.loads((self._directory / _STORED).read_bytes())
            return {str(name): str(text).encode() for name, text in data.items()}
        except (OSError, ValueError, AttributeError):
            return {}  # a lost cache costs a download; the floors still hold

    def _store(self, files: Mapping[str, bytes], trusted: Trusted) -> None:
        roles = trusted.roles
        current = {"timestamp.json"} | {
            f"{role.version}.{name}.json" for name, role in roles.items() if name != "timestamp"
        }
        keep = {name: text.decode() for name, text in files.items() if name in current}
        if keep == {name: text.decode() for name, text in self._stored().items()}:
            return
        temporary = self._directory / (_STORED + ".new")
        with temporary.open("w") as out:
            json.dump(keep, out)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(self._directory / _STORED)
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def refresh_from(
    fetcher: FetcherInterface, url: str, cache: Path, root: bytes, now: datetime, recovery: Recovery | None = None
) -> Trusted:
    """The client workflow (TUF 5.3 to 5.6) over any fetcher. Blocking.

    Args:
        url: What metadata file names are appended to.
        cache: Where verified metadata is kept, one file a role.
        root: The root that came with enrolment; used while the cache holds none.

    Raises:
        TrustError: The code names the attack. Roots that were verified are kept all the same.
        OSError: The cache cannot be written.
    """
    cache.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            updater = Updater(str(cache), url, fetcher=fetcher, config=_LIMITS, bootstrap=root)
        except (tuf_errors.RepositoryError, tuf_errors.DownloadError) as error:
            raise translate(error) from error
        # tuf 7 has no public clock hook; tests/protocol/trust holds this attribute in place.
        updater._trusted_set.reference_time = now  # noqa: SLF001
        try:
            updater.refresh()
            return Trusted(updater)
        except (tuf_errors.RepositoryError, tuf_errors.DownloadError) as error:
            expired = isinstance(error, tuf_errors.ExpiredMetadataError)
            root_now = updater._trusted_set.root  # noqa: SLF001
            if expired and recovery and not holds(recovery.timestamp_keys, timestamp_keys(root_now)):
                now, recovery = recovery.now, None
                continue
            raise translate(error) from error


class _FilesFetcher(FetcherInterface):
    """A fetcher over a set of files; 404 for what is absent, which ends the walk over roots."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        data = self.files.get(url.removeprefix(_BASE))
        if not data:
            raise tuf_errors.DownloadHTTPError(f"{url.removeprefix(_BASE)} is not there", 404)
        return iter([data])
