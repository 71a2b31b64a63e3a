"""``flagship-device enrol --claim``: ask over MQTT until there is a certificate."""

import argparse
import asyncio
import sys
from functools import partial
from pathlib import Path
from random import SystemRandom

from device_client import connection_sets, identity
from device_client.claim import keep_claim, load_claim
from device_client.config import DeviceHome, DeviceSettings, load
from device_client.enrolling import (
    Newcomer,
    accept_first,
    accept_return,
    first_question,
    obtain,
    return_question,
    settings_for,
)
from device_client.errors import UsageError
from device_client.identity_files import IdentityFiles
from protocol.clock import SystemClock
from protocol.enrolment import ConnectionTarget
from protocol.identifiers import check_id, check_serial


def add_claim_options(parser: argparse.ArgumentParser) -> None:
    """What ``enrol`` takes for a claim."""
    parser.add_argument("--claim", type=Path, metavar="DIR", help="ask over MQTT, with this claim folder")
    parser.add_argument("--serial", help="what the device was made as; with --claim")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="how long to ask (for ever)")


def read_label(text: str) -> tuple[str, str]:
    """``KEY=VALUE``; raises UsageError."""
    key, sign, value = text.partition("=")
    if not sign:
        raise UsageError(f"--label {text[:80]!r}: expected KEY=VALUE, such as site=berlin")
    return key, value


def enrol_under_claim(home: DeviceHome, options: argparse.Namespace) -> str:
    """Ask, and keep what is answered; returns what to say.

    Raises:
        UsageError: Words are missing.
        ConflictError, WaitingError, UnreachableError: There is no certificate; asking again is harmless.
    """
    claim, clock = load_claim(options.claim), SystemClock()
    present = load(home.config)[1] if home.config.is_file() else None
    who = _newcomer(options, present)
    search = partial(obtain, claim, clock=clock, random=SystemRandom(), timeout_s=options.timeout, told=_tell)
    if present is not None and IdentityFiles(home).enrolment.is_file():
        settings = settings_for(home, who, present.device.id, present, {})
        enrolment = identity.load_enrolment(home)
        answer = asyncio.run(search(make=lambda: return_question(home, claim, settings, clock)))
        accept_return(home, claim, answer, clock)
        keep_claim(home, claim)
        # The folder was carried here by hand: where its way to the fleet is another, it is tried first.
        brokers, ca = claim.says.brokers, claim.ca.decode()
        if (brokers, ca) != (list(enrolment.brokers), IdentityFiles(home).ca.read_text()):
            connection_sets.offer(home, ConnectionTarget(fleet=enrolment.fleet, version=1, ca=ca, brokers=brokers))
        return f"device {enrolment.device} has a new certificate; it is used from the agent's next connection on"
    identity.make_keys(home)
    answer = asyncio.run(search(make=lambda: first_question(home, claim, who, clock)))
    rest = _rest(options)
    enrolment = accept_first(home, claim, answer, lambda device: settings_for(home, who, device, present, rest), clock)
    return f"device {enrolment.device} belongs to fleet {enrolment.fleet}; start it with 'flagship-device run'"


def _newcomer(options: argparse.Namespace, present: DeviceSettings | None) -> Newcomer:
    device = present.device if present else None
    serial = options.serial or (device.serial if device else None)
    product = options.product or (device.product if device else None)
    hardware = options.hardware or (device.hardware if device else None)
    if serial is None or product is None or hardware is None:
        raise UsageError("enrol --claim: a new device needs --serial, --product and --hardware")
    try:
        return Newcomer(check_serial(serial), check_id(product, "--product"), check_id(hardware, "--hardware"))
    except ValueError as error:
        raise UsageError(f"enrol: {error}") from error


def _rest(options: argparse.Namespace) -> dict[str, object]:
    labels = dict(map(read_label, options.label))
    installer = {"health": [options.health]} if options.health else {}
    component = {"component": options.component} if options.component else {}
    return {"device": {**component, "labels": labels}, "installer": installer}


def _tell(news: str) -> None:
    sys.stderr.write(f"flagship-device: {news}; asking again\n")
