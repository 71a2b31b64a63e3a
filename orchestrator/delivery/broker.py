"""The machine's own mosquitto as a child process: configured, started, started again when it dies, stopped with us."""

import asyncio
import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random

import structlog

from orchestrator.config import Home, Settings
from orchestrator.delivery.broker_access import service_connection, service_host
from orchestrator.delivery.broker_config import CONFIG_FILE, BrokerPlan, broker_files
from orchestrator.errors import ConflictError, OperationError, UnreachableError
from protocol.mqtt.connection import ConnectionLost, backoff, connect
from protocol.topics import DELIVERY

log = structlog.get_logger(__name__)

PORT_WAIT_S = 5.0
"""A broker of a serve that was killed needs a moment to save what it retains."""
STOP_S = 10.0
STEADY_S = 10.0
"""Who ran this long starts again at once."""
LOG_FILE = "mosquitto.log"
_PR_SET_PDEATHSIG = 1


class ManagedBroker:
    """One mosquitto. ``run`` it in a task group, await ``ready`` before using it."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self._home = home
        self._settings = settings
        self._random = Random()
        self.process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Keep the broker running until cancelled, then stop it. Waits forever where brokers are not ours.

        Raises:
            OperationError: mosquitto is missing, a port is in use, or it refuses to start.
        """
        if not self._settings.broker.managed:
            await asyncio.Event().wait()
        program = find_mosquitto()
        config = await asyncio.to_thread(write_config, self._home, self._settings)
        await self._wait_for_ports()
        attempt, first = 0, True
        while True:
            started_at = asyncio.get_running_loop().time()
            code = await self._run_once(program, config)
            lived_s = asyncio.get_running_loop().time() - started_at
            if first and code > 0 and lived_s < STEADY_S:  # it refused; a signal is somebody else's doing
                raise OperationError(f"mosquitto ended with code {code}: {self._last_words()}")
            first, attempt = False, 0 if lived_s >= STEADY_S else attempt + 1
            delay_s = backoff(attempt, self._random, base_s=0.2, cap_s=10.0)
            log.warning("broker died", code=code, lived_s=round(lived_s, 1), retry_s=round(delay_s, 2))
            await asyncio.sleep(delay_s)

    async def ready(self, timeout_s: float = 15.0) -> None:
        """Wait until the broker answers an MQTT CONNECT over TLS with the orchestrator's certificate.

        Raises:
            UnreachableError: It did not in time.
        """
        target = service_connection(self._home, self._settings, DELIVERY, purpose="probe")
        where, why = f"{target.host}:{target.port}", "no answer"
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        async with connect(target):
                            return
                    except ConnectionLost as error:
                        why = str(error)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise UnreachableError(
                f"broker {where}: not ready after {timeout_s:g} s ({why}); see {self._home.broker / LOG_FILE}"
            ) from None

    def reload(self) -> bool:
        """Make the broker read its revocation lists again, if it runs here; one that starts reads them anyway.

        Connections stay; mosquitto makes new TLS contexts, so tickets of before open nothing either.
        """
        process = self.process
        if process is None or process.returncode is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGHUP)
            return True
        return False

    async def _run_once(self, program: str, config: Path) -> int:
        """One life of the process; it is gone when this returns or raises."""
        output = await asyncio.to_thread(_open_log, self._home.broker / LOG_FILE)
        try:
            self.process = await asyncio.create_subprocess_exec(
                program,
                "-c",
                str(config),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_die_with(os.getpid()),
                start_new_session=True,  # Ctrl-C is for us; we stop the broker last
            )
        finally:
            os.close(output)
        log.info("broker started", pid=self.process.pid, devices=self._settings.broker.device_port)
        try:
            return await self.process.wait()
        finally:
            await _stop(self.process)

    async def _wait_for_ports(self) -> None:
        broker = self._settings.broker
        wanted = [(broker.host, broker.device_port), (service_host(self._settings), broker.service_port)]
        if broker.enrol_port:
            wanted.append((broker.host, broker.enrol_port))
        for host, port in wanted:
            deadline = asyncio.get_running_loop().time() + PORT_WAIT_S
            while (why := _occupied(host, port)) is not None:
                if asyncio.get_running_loop().time() > deadline:
                    raise ConflictError(
                        f"broker: cannot listen on {host}:{port}: {why}; stop what listens there, "
                        "or set broker.device_port and broker.service_port in config.toml"
                    )
                await asyncio.sleep(0.1)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self._home.broker / LOG_FILE).read_text(errors="replace").strip().splitlines()
            worst = [line for line in lines if "Error" in line]
            return (worst or lines or ["it said nothing"])[-1][-300:]
        return "its log cannot be read"


def find_mosquitto() -> str:
    """The program's path.

    Raises:
        UnreachableError: It is not installed.
    """
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise UnreachableError(
            "mosquitto is not installed; install it with 'apt-get install mosquitto', "
            "or set broker.managed = false in config.toml and name a broker that runs"
        )
    return found


def write_config(home: Home, settings: Settings) -> Path:
    """Write configuration and access lists; returns the configuration's path. Blocking.

    Raises:
        OperationError: The home cannot be written.
    """
    certificate, key = home.certificate("broker")
    plan = BrokerPlan(
        fleet=settings.fleet,
        directory=home.broker.resolve(),
        devices_ca=home.devices_ca.resolve(),
        devices_crl=home.devices_crl.resolve(),
        services_ca=home.services_ca.resolve(),
        services_crl=home.services_crl.resolve(),
        certificate=certificate.resolve(),
        key=key.resolve(),
        device_port=settings.broker.device_port,
        service_port=settings.broker.service_port,
        device_host=settings.broker.host,
        service_host=service_host(settings),
        user=pwd.getpwuid(os.geteuid()).pw_name,
        claims_ca=home.claims_ca.resolve(),
        enrol_port=settings.broker.enrol_port,
    )
    try:
        home.broker.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in broker_files(plan).items():
            path = home.broker / name
            path.write_text(text)
            path.chmod(0o600)
    except OSError as error:
        raise OperationError(f"{home.broker}: {error.strerror}; the broker's configuration was not written") from error
    return home.broker / CONFIG_FILE


async def _stop(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, so that it saves what it retains; SIGKILL when it does not end."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    log.info("broker stopped", pid=process.pid)


def _occupied(host: str, port: int) -> str | None:
    """Why the port cannot be listened on; None when it can."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _open_log(path: Path) -> int:
    """A log that keeps one former life."""
    with contextlib.suppress(OSError):
        path.replace(path.with_suffix(".log.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _die_with(parent: int) -> Callable[[], None]:
    """Run in the child before exec: end when the parent ends, however it ends."""
    prctl = ctypes.CDLL(None).prctl  # looked up here: after fork only plain calls are safe

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    return prepare
