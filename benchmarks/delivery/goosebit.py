"""gooseBit 0.2.12 as the peer of a whole device-update: its server, an image, and simulated devices (hawkBit's DDI).

Plain HTTP, SQLite, its default settings and its one process: it has no TLS, which is in its favour.
"""

import asyncio
import hashlib
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.delivery.servers import tree_cpu_s
from orchestrator.demo.fleet import free_ports

CACHE = Path(os.environ.get("FLAGSHIP_BENCH_CACHE", Path.home() / ".cache" / "flagship-bench"))
PROCEEDING = 4
"""Progress reports of a device, beside the one that closes the update."""
START_TIMEOUT_S = 30.0
TIMEOUT_S = 600.0
DESCRIPTION = (
    'software =\n{{\n  version = "2.0.0";\n  hardware-compatibility: ["1.0"];\n'
    '  images: ( {{ filename = "rootfs.img"; device = "/dev/mmcblk0p2"; sha256 = "{sha256}"; }} );\n}}\n'
)


def make_image(place: Path, payload: bytes) -> Path:
    """The least that it takes as an image: a description and the payload. Blocking."""
    (place / "rootfs.img").write_bytes(payload)
    (place / "sw-description").write_text(DESCRIPTION.format(sha256=hashlib.sha256(payload).hexdigest()))
    image = place / "image.swu"
    with image.open("wb") as out:
        names = b"sw-description\nrootfs.img\n"
        subprocess.run(
            ["cpio", "-o", "-H", "crc"], input=names, stdout=out, stderr=subprocess.DEVNULL, cwd=place, check=True
        )
    return image


async def update_all(place: Path, image: Path, devices: int) -> float:
    """One update of ``devices`` devices at once by a new server; CPU seconds of the server."""
    async with _serving(place) as (pid, address), httpx.AsyncClient(base_url=address, timeout=TIMEOUT_S) as client:
        await _publish(client, image)
        before = tree_cpu_s(pid)
        await asyncio.gather(*(_device(address, number) for number in range(devices)))
        return tree_cpu_s(pid) - before


@asynccontextmanager
async def _serving(place: Path) -> AsyncIterator[tuple[int, str]]:
    environment = CACHE / "goosebit"
    if not (environment / "bin" / "aerich").exists():
        raise RuntimeError("gooseBit is not installed; run benchmarks/delivery/setup.sh")
    (port,) = free_ports(1)
    await asyncio.to_thread(place.mkdir)
    env = {
        **os.environ,
        "GOOSEBIT_DB_URI": f"sqlite:///{place}/db.sqlite3",
        "GOOSEBIT_ARTIFACTS_DIR": f"{place}/artifacts",
        "GOOSEBIT_PORT": str(port),
    }
    (migrations,) = environment.glob("lib/python3*/site-packages/goosebit/db/migrations")
    (place / "pyproject.toml").write_text(
        '[tool.aerich]\ntortoise_orm = "goosebit.db.config.TORTOISE_CONF"\n'
        f'location = "{migrations}"\nsrc_folder = "./."\n'
    )
    with (place / "goosebit.log").open("wb") as log:
        upgrade = await asyncio.create_subprocess_exec(
            str(environment / "bin" / "aerich"), "upgrade", cwd=place, env=env, stdout=log, stderr=log
        )
        if await upgrade.wait():
            raise RuntimeError(
                f"gooseBit: its database could not be made: {(place / 'goosebit.log').read_text()[-500:]}"
            )
        python = str(environment / "bin" / "python")
        server = await asyncio.create_subprocess_exec(
            python, "-m", "goosebit", cwd=place, env=env, stdout=log, stderr=log
        )
    try:
        address = f"http://127.0.0.1:{port}"
        await _until_up(address)
        yield server.pid, address
    finally:
        if server.returncode is None:
            server.terminate()
            await server.wait()


async def _until_up(address: str) -> None:
    async with asyncio.timeout(START_TIMEOUT_S), httpx.AsyncClient() as client:
        while True:
            try:
                await client.get(f"{address}/login")
            except httpx.TransportError:
                await asyncio.sleep(0.2)
            else:
                return


async def _publish(client: httpx.AsyncClient, image: Path) -> None:
    answer = await client.post("/setup", data={"username": "a@b.c", "password": "pw", "grant_type": "password"})
    head = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    with image.open("rb") as file:
        made = await client.put("/api/v1/software", files={"file": ("image.swu", file)}, headers=head)
    made.raise_for_status()
    spec = {"name": "r", "feed": "default", "software_id": made.json()["id"]}
    (await client.put("/api/v1/rollouts", json=spec, headers=head)).raise_for_status()


async def _device(address: str, number: int) -> None:
    """Poll, say what it is, poll, see the deployment, download, report five times, poll."""
    about = {"data": {"hw_boardname": "default", "hw_revision": "1.0", "sw_version": "1.0.0"}}
    async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
        own = f"{address}/DEFAULT/controller/v1/dev-{number}"
        links = (await _json(client, own))["_links"]
        (await client.put(links["configData"]["href"], json=about)).raise_for_status()
        deployment = (await _json(client, own))["_links"]["deploymentBase"]["href"]
        artifact = (await _json(client, deployment))["deployment"]["chunks"][0]["artifacts"][0]
        size = await _download(httpx.URL(artifact["_links"]["download"]["href"]))
        if size != artifact["size"]:
            raise RuntimeError(f"gooseBit: device {number}: expected {artifact['size']} B, found {size}")
        for step in range(PROCEEDING):
            await _say(client, deployment, "proceeding", "none", f"Downloaded {step * 25}%")
        await _say(client, deployment, "closed", "success", "done")
        if "deploymentBase" in (await _json(client, own))["_links"]:
            raise RuntimeError(f"gooseBit: device {number}: the update did not end")


async def _download(address: httpx.URL) -> int:
    """Bytes of a file, by a plain socket: httpx would take more time than the server."""
    reader, writer = await asyncio.open_connection(address.host, address.port, limit=2**20)
    target = address.raw_path.decode()
    writer.write(f"GET {target} HTTP/1.1\r\nHost: {address.host}\r\nConnection: close\r\n\r\n".encode())
    head, size = await reader.readuntil(b"\r\n\r\n"), 0
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"gooseBit: the download was answered with {head[:40]!r}")
    while part := await reader.read(2**20):
        size += len(part)
    writer.close()
    return size


async def _say(client: httpx.AsyncClient, deployment: str, execution: str, finished: str, detail: str) -> None:
    status = {"execution": execution, "result": {"finished": finished}, "details": [detail]}
    (await client.post(f"{deployment}/feedback", json={"status": status})).raise_for_status()


async def _json(client: httpx.AsyncClient, address: str) -> Any:  # noqa: ANN401
    answer = await client.get(address)
    answer.raise_for_status()
    return json.loads(answer.content)
