"""``flagship-device update --from DIR``: hand a medium to the agent that runs."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device_client.config import load
from device_client.local_socket import request


def add_to(verbs: "argparse._SubParsersAction[Any]", home: Callable[..., None]) -> None:
    """Make this command part of ``flagship-device``."""
    update = verbs.add_parser("update", help="update from a medium, without a link")
    home(update)
    update.add_argument(
        "--from", dest="medium", type=Path, required=True, metavar="DIR", help="the medium's folder, as it is mounted"
    )
    update.set_defaults(run=_update)


def _update(options: argparse.Namespace) -> None:
    home, _ = load(options.home)
    answer = request(home.socket, "update", medium=str(options.medium.absolute()))
    for rollout, said in answer["taken"].items():
        print(f"rollout {rollout}: {said}")
    for rollout, why in answer["refused"].items():
        print(f"{f'rollout {rollout}' if rollout else 'trust'}: not taken: {why}")
