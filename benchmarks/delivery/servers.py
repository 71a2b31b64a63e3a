"""The peers' servers on this machine, and the CPU time of whole process trees."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks._machine import cpu_s
from orchestrator.config import Home
from orchestrator.demo.fleet import free_ports

TICK = os.sysconf("SC_CLK_TCK")
START_TIMEOUT_S = 20.0

NGINX = """
daemon off; worker_processes 1; pid {place}/nginx.pid; error_log {place}/error.log; {user}
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000; types {{ }}
  client_body_temp_path {place}/t1; proxy_temp_path {place}/t2; fastcgi_temp_path {place}/t3;
  uwsgi_temp_path {place}/t4; scgi_temp_path {place}/t5;
  server {{
    listen 127.0.0.1:{port} ssl; root {root};
    ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;
    ssl_client_certificate {ca}; ssl_verify_client on; ssl_buffer_size 16k;
  }}
}}
"""
MOSQUITTO = """
user {user}
listener {port} 127.0.0.1
cafile {ca}
certfile {certificate}
keyfile {key}
require_certificate true
allow_anonymous true
persistence false
set_tcp_nodelay true
max_inflight_messages 64
max_queued_messages 0
log_dest none
"""


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs: its port and its main process."""

    port: int
    pid: int


def tree(pid: int) -> list[int]:
    """A process and everything below it."""
    children: dict[int, list[int]] = {}
    for one, parent in _parents():
        children.setdefault(parent, []).append(one)
    found, left = [], [pid]
    while left:
        one = left.pop()
        found.append(one)
        left += children.get(one, [])
    return found


def named(pid: int, name: str) -> int:
    """The one process below ``pid`` whose program has this name."""
    found = [one for one in tree(pid) if _program(one) == name]
    if len(found) != 1:
        raise RuntimeError(f"below process {pid}: one {name}, found {len(found)}")
    return found[0]


def tree_cpu_s(pid: int) -> float:
    """User and system seconds of a process, of everything below it, and of children that it has waited for."""
    total = 0.0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            total += cpu_s(one) + _waited_for_s(one)
    return total


def moved_bytes(pid: int) -> int:
    """Bytes that a process has read and written so far, files and sockets alike."""
    lines = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(lines["rchar"]) + int(lines["wchar"])


@asynccontextmanager
async def nginx(place: Path, home: Home, root: Path) -> AsyncIterator[Served]:
    """HTTPS for the files below ``root``, with the fleet's own certificates and one worker."""
    await asyncio.to_thread(place.mkdir)
    (port,) = free_ports(1)
    certificate, key = (path.resolve() for path in home.certificate("broker"))
    user = "user root;" if os.geteuid() == 0 else ""
    names = {"place": place, "root": root, "port": port, "ca": home.devices_ca.resolve(), "user": user}
    (place / "nginx.conf").write_text(NGINX.format(certificate=certificate, key=key, **names))
    async with _running(place, port, "nginx", "-c", str(place / "nginx.conf"), "-e", str(place / "error.log")) as pid:
        yield Served(port, pid)


@asynccontextmanager
async def plain_mosquitto(place: Path, home: Home) -> AsyncIterator[Served]:
    """A mosquitto with TLS and client certificates, and no access lists: fan-out as it is."""
    await asyncio.to_thread(place.mkdir)
    (port,) = free_ports(1)
    certificate, key = (path.resolve() for path in home.certificate("broker"))
    user = "root" if os.geteuid() == 0 else "mosquitto"
    conf = MOSQUITTO.format(port=port, ca=home.devices_ca.resolve(), certificate=certificate, key=key, user=user)
    (place / "mosquitto.conf").write_text(conf)
    async with _running(place, port, "mosquitto", "-c", str(place / "mosquitto.conf")) as pid:
        yield Served(port, pid)


@asynccontextmanager
async def _running(place: Path, port: int, name: str, *words: str) -> AsyncIterator[int]:
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    program = shutil.which(name, path=path)
    if program is None:
        raise RuntimeError(f"{name} is not installed; run benchmarks/delivery/setup.sh")
    log = place / f"{name}.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            program, *words, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                if process.returncode is not None:
                    raise RuntimeError(f"{name} ended with {process.returncode}: {log.read_text()[-500:]}")
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
        yield process.pid
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                yield int(entry.name), int((entry / "stat").read_text().rpartition(")")[2].split()[1])


def _program(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _waited_for_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / TICK
