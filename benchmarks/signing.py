"""How many offers can be signed and wrapped, and how many reports verified, in one second of CPU?

    python benchmarks/signing.py [--devices 5000] [--json benchmarks/results/signing.json]

Offers go in batches of 100, as delivery sends them, each to another device. "first" wraps the content key for a device
that never had it, and signs; "again" is the same offer signed anew, its wrap known; "update" is the mean of the four
offers that an update takes, one first and three again. The log of requests is written as always. In process: CPU of
this process, which is all there is. Over the socket: a real ``flagship signer``; its CPU and that of the asking side
are shown apart, and the rate is of both together. Reports are DSSE by P-256 keys of devices, checked as ingest checks
them, from topic to model. Figures are the best of five runs.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # for what stands beside this file

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from securesystemslib.signer import CryptoSigner

from benchmarks._machine import cpu_s, machine
from orchestrator.cli.init import HomePlan, initialise
from orchestrator.config import Home
from orchestrator.demo.processes import program
from orchestrator.errors import SignerAwayError
from orchestrator.ingest.parse import check
from orchestrator.signer.client import SignerClient
from orchestrator.signer.keys import load_x25519
from orchestrator.signer.seam import OfferRequest, Signed, SigningRoom
from orchestrator.signer.signer import Signer
from protocol.directives import Grant, ReleaseRef
from protocol.encryption import PACKAGE_RECIPIENT, wrap_key
from protocol.envelopes import encode, sign, verify_with
from protocol.mqtt.connection import Message
from protocol.reports import STATE_TYPE, StateReport
from protocol.states import State
from protocol.topics import Kind, Topics

GOAL_OFFERS = 5000
BATCH = 100
RUNS = 5
FLEET = "bench"
START_S = 30.0


@dataclass(frozen=True, slots=True)
class Rate:
    """Of one way of signing; microseconds are per offer.

    Attributes:
        signer_us: CPU of the signer.
        asking_us: CPU of the side that asks; 0 where both are one process.
        per_cpu_s: Offers per second of both together.
    """

    how: str
    which: str
    signer_us: float
    asking_us: float
    per_cpu_s: int


class Offers:
    """Offers of one rollout to many devices."""

    def __init__(self, home: Home, devices: int) -> None:
        package = load_x25519(home.signer / "package.key").public_key()
        self._ref = ReleaseRef(path="gateway/1.1.0/manifest", length=10_000, sha256="a" * 64, counter=1)
        self._sealed = wrap_key(b"k" * 32, package, release=self._ref.sha256, device=PACKAGE_RECIPIENT)
        keys = (X25519PrivateKey.generate().public_key().public_bytes_raw() for _ in range(devices))
        self._keys = [base64.b64encode(key).decode() for key in keys]

    def batches(self, run: int) -> list[list[OfferRequest]]:
        """As delivery makes them; another run has other devices."""
        expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
        requests = [
            OfferRequest(
                {
                    "rollout": "r-1", "device": f"run{run}-{number:06}", "attempt": 1, "release": self._ref,
                    "grant": Grant.DOWNLOAD, "expires": expires, "heard": {"nonce": "n" * 16, "outcome": None},
                },
                self._sealed,
                key,
            )
            for number, key in enumerate(self._keys)
        ]  # fmt: skip
        return [requests[start : start + BATCH] for start in range(0, len(requests), BATCH)]


def measure_offers(
    how: str, room: SigningRoom, offers: Offers, devices: int, signer_cpu: Callable[[], float] | None
) -> list[Rate]:
    """First offers, then the same again.

    Args:
        signer_cpu: CPU seconds of the signer's process so far; None when it is this one.
    """
    best: dict[str, tuple[float, float]] = {}
    for run in range(RUNS):
        batches = offers.batches(run)
        for which in ("first", "again"):
            before, own = signer_cpu() if signer_cpu else 0.0, time.process_time()
            for batch in batches:
                if not all(isinstance(answer, Signed) for answer in room.sign(batch)):
                    raise RuntimeError("the signer refused an offer")
            own = time.process_time() - own
            used = (signer_cpu() - before, own) if signer_cpu else (own, 0.0)
            best[which] = min(best.get(which, (float("inf"), 0.0)), used, key=sum)
    first, again = best["first"], best["again"]
    best["update"] = ((first[0] + 3 * again[0]) / 4, (first[1] + 3 * again[1]) / 4)
    return [
        Rate(
            how=how,
            which=which,
            signer_us=round(signer / devices * 1e6, 1),
            asking_us=round(asking / devices * 1e6, 1),
            per_cpu_s=round(devices / (signer + asking)),
        )
        for which, (signer, asking) in best.items()
    ]


def in_process(home: Home, devices: int) -> list[Rate]:
    """The keys in this process."""
    signer = Signer.open(home, home.load())
    try:
        return measure_offers("in process", signer, Offers(home, devices), devices, None)
    finally:
        signer.close()


def over_the_socket(home: Home, devices: int) -> list[Rate]:
    """A ``flagship signer``, and a client of it."""
    path = home.path / "s.sock"
    env = {**os.environ, "FLAGSHIP_SIGNER__SOCKET": str(path)}
    words = [program("flagship"), "signer", "--home", str(home.path)]
    process = subprocess.Popen(words, env=env, stderr=subprocess.DEVNULL)
    client = SignerClient(path, 60.0)
    try:
        _wait(client, process)
        return measure_offers("socket", client, Offers(home, devices), devices, lambda: cpu_s(process.pid))
    finally:
        client.close()
        process.terminate()
        process.wait(START_S)


def reports_per_cpu_s(devices: int) -> int:
    """State reports that ingest would believe, per CPU second."""
    topics, now = Topics(FLEET), datetime.now(UTC).replace(microsecond=0)
    ref = ReleaseRef(path="gateway/1.1.0/manifest", length=10_000, sha256="a" * 64, counter=1)
    verifiers, messages = {}, []
    for number in range(devices):
        device, key = f"d{number:06}", CryptoSigner.generate_ecdsa()
        values: dict[str, Any] = {
            "fleet": FLEET, "device": device, "issued": now, "session": 7, "seq": number + 1, "rollout": "r-1",
            "attempt": 1, "release": ref, "state": State.SUCCEEDED, "nonce": "n" * 16, "from_version": "1.0.0",
            "running_version": "1.1.0",
        }  # fmt: skip
        payload = sign(encode(StateReport.model_validate(values)), STATE_TYPE, key)
        messages.append(Message(topics.build(Kind.STATE, device=device), payload, qos=1, retain=False))
        verifiers[device] = verify_with(key.public_key)
    best = float("inf")
    for _ in range(RUNS):
        before = time.process_time()
        for message in messages:
            check(topics, message, verifiers.get)
        best = min(best, time.process_time() - before)
    return round(devices / best)


def _wait(client: SignerClient, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            client.begin((0, 0), 1)
            return
        except SignerAwayError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.05)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=5000)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "signing.json")
    options = parser.parse_args(arguments)
    rates: list[Rate] = []
    for measure in (in_process, over_the_socket):
        with tempfile.TemporaryDirectory(prefix="fs-bench-") as place:
            home = initialise(Path(place) / "home", HomePlan(FLEET))
            with home.config.open("a") as config:
                config.write("\n[signer]\noffers_per_minute = 1e9\noffers_burst = 1000000000\n")
            rates += measure(home, options.devices)
    reports = reports_per_cpu_s(min(options.devices, 2000))
    here = machine()
    print(f"{here['processor']}, {here['cores']} cores, Linux {here['kernel']}, Python {here['python']}")
    print(f"{'offers':>11} {'':>6} {'signer':>10} {'asking':>10} {'per CPU-s':>10}   goal {GOAL_OFFERS}")
    for rate in rates:
        verdict = "met" if rate.per_cpu_s >= GOAL_OFFERS else "MISSED"
        print(
            f"{rate.how:>11} {rate.which:>6} {rate.signer_us:>7.1f} us {rate.asking_us:>7.1f} us {rate.per_cpu_s:>10}"
            f"   {verdict}"
        )
    print(f"state reports verified (in serve; they never cross the socket): {reports} per CPU-s")
    found = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": here,
        "load_before": os.getloadavg()[0],
        "devices": options.devices,
        "batch": BATCH,
        "offers": [asdict(rate) for rate in rates],
        "goal_offers_per_cpu_s": GOAL_OFFERS,
        "state_reports_per_cpu_s": reports,
        "goals_met": all(rate.per_cpu_s >= GOAL_OFFERS for rate in rates),
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
