"""The command line that the public TUF conformance suite drives, over the device's own verification.

    client.py --metadata-dir D init ROOT
    client.py --metadata-dir D --metadata-url U refresh
    client.py --metadata-dir D --metadata-url U --target-name T --target-base-url B --target-dir X download

Exit code 0, or 1 with one line that says why. ``Verifier``, floors and the workflow are what a device runs; only the
fetcher is another one: HTTP in place of topics. Floors stand in a folder of their own below D.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import urlopen

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import TargetFile
from tuf.ngclient import FetcherInterface

from device_client.floors_file import DeviceFloors
from device_client.verification.release import Verifier
from protocol.clock import SystemClock
from protocol.errors import ErrorCode, FlagshipError, TrustError
from protocol.trust.checks import Receiver
from protocol.trust.trusted import Trusted
from protocol.trust.workflow import Recovery, refresh_from

TIMEOUT_S = 10.0
BLOCK = 65_536
NOBODY = Receiver(fleet="conformance", device="conformance", product="none", hardware="none", components={})


class HttpFetcher(FetcherInterface):
    """Metadata and targets over HTTP."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            with urlopen(url, timeout=TIMEOUT_S) as response:
                while block := response.read(BLOCK):
                    yield block
        except HTTPError as error:
            raise tuf_errors.DownloadHTTPError(f"{url}: {error.code}", error.code) from error
        except (URLError, OSError) as error:
            raise tuf_errors.DownloadError(f"{url}: {error}") from error


class HttpTrustStore:
    """Stands where a device has its ``TrustStore``; the set of files is whatever the server says."""

    def __init__(self, directory: Path, url: str, targets: list[str]) -> None:
        self._directory = directory
        self._url = url
        self._targets = targets
        self.found: dict[str, TargetFile | None] = {}

    def refresh(
        self,
        files: Mapping[str, bytes],
        now: datetime,
        products: tuple[str, ...] = (),
        recovery: Recovery | None = None,
    ) -> Trusted:
        """As ``TrustStore.refresh``; the roles that list the wanted targets are loaded as a product's are there."""
        assert not files
        assert products
        root = (self._directory / "root.json").read_bytes()
        trusted = refresh_from(HttpFetcher(), self._url, self._directory, root, now, recovery)
        self.found = {name: trusted.target(name) for name in self._targets}
        return trusted


def refresh(directory: Path, url: str, targets: list[str]) -> dict[str, TargetFile | None]:
    """Refresh as a device does; returns what is listed under the wanted names.

    Raises:
        FlagshipError: Metadata was refused; the code names the attack.
    """
    store = HttpTrustStore(directory, url, targets)
    floors = directory / "floors"
    floors.mkdir(exist_ok=True)
    verifier = Verifier(store, DeviceFloors(floors), lambda: NOBODY, SystemClock())
    verifier.refresh({})
    return store.found


def download(target: TargetFile, base_url: str, folder: Path) -> None:
    """Fetch a listed target, if what is there is not it already, and keep it only if it is what was signed.

    Raises:
        TrustError: It is shorter or another one than was signed.
        DownloadError: It is not there, or longer than was signed.
    """
    place = folder / quote(target.path, safe="")
    if place.is_file() and _is(target, place.read_bytes()):
        return
    folder_name, _, name = target.path.rpartition("/")
    digest = next(iter(target.hashes.values()))
    url = "/".join(part for part in (base_url.rstrip("/"), folder_name, f"{digest}.{name}") if part)
    data = HttpFetcher().download_bytes(url, target.length)
    if not _is(target, data):
        raise TrustError(ErrorCode.MIX, f"target {target.path}: not what was signed")
    place.write_bytes(data)


def _is(target: TargetFile, data: bytes) -> bool:
    try:
        target.verify_length_and_hashes(data)
    except tuf_errors.LengthOrHashMismatchError:
        return False
    return True


def main(arguments: list[str] | None = None) -> int:
    """One command; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url", default="")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-base-url", default="")
    parser.add_argument("--target-dir", type=Path)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("init").add_argument("root", type=Path)
    verbs.add_parser("refresh")
    verbs.add_parser("download")
    options = parser.parse_args(arguments)
    try:
        if options.verb == "init":
            (options.metadata_dir / "root.json").write_bytes(options.root.read_bytes())
            return 0
        wanted = options.target_name if options.verb == "download" else []
        found = refresh(options.metadata_dir, options.metadata_url, wanted)
        for name, target in found.items():
            if target is None:
                raise TrustError(ErrorCode.NOT_RELEASED, f"target {name}: not listed")
            download(target, options.target_base_url, options.target_dir)
    except (FlagshipError, tuf_errors.DownloadError, OSError) as error:
        print(f"client: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
