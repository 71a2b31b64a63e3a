"""Mender's own update modules, as Debian ships them."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

INSTALLED = Path("/usr/share/mender/modules/v3")
PACKAGE = "mender-client"


@pytest.fixture(scope="session")
def mender_modules() -> Path:
    """A folder with them: those installed here, else those of Debian's package, which is unpacked and not installed."""
    if (INSTALLED / "single-file").is_file():
        return INSTALLED
    cache = Path(tempfile.gettempdir()) / f"flagship-{PACKAGE}-{os.geteuid()}"
    modules = cache / "root" / INSTALLED.relative_to("/")
    if cache.is_dir() and (cache.lstat().st_uid, cache.lstat().st_mode & 0o022) != (os.geteuid(), 0):
        pytest.skip(f"{cache}: is somebody else's; remove it, then Mender's modules are tried")
    if not modules.is_dir():
        fresh = Path(tempfile.mkdtemp(prefix=f"flagship-{PACKAGE}-"))
        try:
            for command in (f"apt-get -q download {PACKAGE}", f"dpkg-deb -x {PACKAGE}_*.deb root"):
                subprocess.run(["sh", "-c", command], cwd=fresh, check=True, capture_output=True, timeout=120)
            shutil.rmtree(cache, ignore_errors=True)
            fresh.rename(cache)
        except (OSError, subprocess.SubprocessError) as error:
            shutil.rmtree(fresh, ignore_errors=True)
            pytest.skip(f"MENDER'S UPDATE MODULES ARE NOT TRIED: {PACKAGE} cannot be had through apt: {error}")
    return modules
