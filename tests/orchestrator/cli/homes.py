"""A home for tests of the command line: whole, with ports of its own."""

from pathlib import Path

from orchestrator.cli.init import HomePlan, initialise
from orchestrator.config import Home
from orchestrator.demo.fleet import free_ports

FLEET, PRODUCT = "harbour", "gateway"


def make_home(directory: Path) -> Home:
    """What ``flagship init`` makes; nothing serves it."""
    api, devices, services, claims = free_ports(4)
    plan = HomePlan(FLEET, (PRODUCT,), api_port=api, device_port=devices, service_port=services, enrol_port=claims)
    return initialise(directory, plan)
