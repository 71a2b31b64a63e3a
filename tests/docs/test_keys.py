"""The commands of docs/how-to/keys.md, run in order against a real home, broker and serve."""

import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from orchestrator.demo.fleet import free_ports

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "keys.md"
SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
SYSTEMCTL = """#!{python}
import os, pathlib, signal, subprocess, sys, time, urllib.request
pid = pathlib.Path("serve.pid")
if sys.argv[1] == "start":
    with open("serve.log", "ab") as log:
        serve = subprocess.Popen([{python!r}, "-m", "orchestrator.cli.main", "serve", "--home", "fleet"],
                                 stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    pid.write_text(str(serve.pid))
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            urllib.request.urlopen("http://127.0.0.1:" + os.environ["FLAGSHIP_API__PORT"] + "/healthz", timeout=1)
            sys.exit(0)
        except OSError:
            time.sleep(0.05)
    sys.exit("serve did not start: " + open("serve.log").read())
if pid.exists():
    number = int(pid.read_text())
    os.kill(number, signal.SIGTERM)
    until = time.monotonic() + 30
    while time.monotonic() < until and os.path.exists(f"/proc/{{number}}"):
        time.sleep(0.05)
    pid.unlink()
"""


def commands(page: str, *, token: bool) -> str:
    """The page's code as one script; ``! command`` must fail."""
    lines, fenced = [], ""
    for line in page.splitlines():
        if line.startswith("```"):
            fenced = "" if fenced else line[3:]
        elif fenced:
            lines += [line] if fenced == "sh token" and token else []
        elif line.startswith("    ") or not line:
            lines.append(line[4:])
    script = "\n".join(lines)
    return re.sub(r"^! (.*)$", r"if \1; then echo 'expected a refusal' >&2; exit 99; fi", script, flags=re.MULTILINE)


@pytest.mark.slow
def test_every_command_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    """A whole life of keys: it ends with a home of which nothing has run out, and the keys that it names."""
    token = SOFTHSM.exists() and shutil.which("softhsm2-util") is not None
    if not token:
        warnings.warn("SoftHSM 2 is not installed: the page's commands for tokens did NOT run", stacklevel=1)
    place = tmp_path / "place"
    bin_ = tmp_path / "bin"
    for directory in (place, bin_, tmp_path / "tokens"):
        directory.mkdir()
    (bin_ / "systemctl").write_text(SYSTEMCTL.format(python=sys.executable))
    (bin_ / "flagship").write_text(f'#!/bin/sh\nexec {sys.executable} -m orchestrator.cli.main "$@"\n')
    for tool in bin_.iterdir():
        tool.chmod(0o755)
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    api, devices, services = free_ports(3)
    env = {
        **os.environ,
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "PYTHONPATH": str(PAGE.parents[2]),
        "FLAGSHIP_API__PORT": str(api),
        "FLAGSHIP_BROKER__DEVICE_PORT": str(devices),
        "FLAGSHIP_BROKER__SERVICE_PORT": str(services),
        "SOFTHSM2_CONF": str(tmp_path / "softhsm2.conf"),
    }
    script = "set -euo pipefail\nset -x\n" + commands(PAGE.read_text(), token=token)
    try:
        done = subprocess.run(
            ["bash", "-c", script], cwd=place, env=env, capture_output=True, text=True, timeout=300, check=False
        )
    finally:
        subprocess.run([bin_ / "systemctl", "stop"], cwd=place, env=env, check=False, timeout=60)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert '"state": "ok"' in done.stdout
    assert "correct horse" not in (place / "serve.log").read_text()
    holders = (place / "release-keys" / "keys" / "holders.json").read_text()
    assert "Dora Lee" in holders
    assert ("Eve Moss" in holders) is token
