"""``flagship-device verify``: is what is installed still exactly what was written? With or without an agent.

It only reads, so it needs no lock. Where an update changes the device meanwhile, it is compared once more.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from device_client.cli_status import plain
from device_client.config import load
from device_client.errors import NotFoundError, StorageError
from device_client.installers.installer import Installer, Running
from device_client.installers.making import make_installer


@dataclass(frozen=True, slots=True)
class Found:
    """What runs, and how it differs from what was written; empty where it does not."""

    running: Running
    fault: str


def add_to(verbs: "argparse._SubParsersAction[Any]", home: Callable[..., None]) -> None:
    """Make this command part of ``flagship-device``."""
    verify = verbs.add_parser("verify", help="compare what is installed with what was written; 0: it is intact")
    home(verify)
    verify.add_argument("-o", "--output", choices=("text", "json"), default="text")
    verify.set_defaults(run=_verify)


def check(installer: Installer) -> Found | None:
    """Hash all that is installed; None where nothing ever was. Blocks.

    Raises:
        DeviceError: It cannot be told what is installed.
    """
    found: Found | None = None
    for _ in range(2):
        running = installer.running()
        if running is None:
            return None
        found = Found(running, installer.fault())
        if not found.fault or installer.running() == running:
            break
    return found


def _verify(options: argparse.Namespace) -> None:
    home, settings = load(options.home)
    found = check(make_installer(home, settings))
    if found is None:
        raise NotFoundError(f"{home.path}: nothing is installed here that could be verified")
    name = f"{settings.device.component} {found.running.version}"
    if options.output == "json":
        values = {"version": found.running.version, "digest": found.running.digest, "fault": found.fault}
        print(json.dumps({"component": settings.device.component, "intact": not found.fault, **values}))
    if found.fault:
        raise StorageError(plain(f"{name}: {found.fault}; install it again, or another release"))
    if options.output == "text":
        print(plain(f"{name}: as it was written ({found.running.digest[:16]})"))
