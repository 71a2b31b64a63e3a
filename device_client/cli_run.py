"""``flagship-device run``: agents until they are told to stop."""

import argparse
import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from device_client.agents import run_agents
from device_client.config import load
from device_client.errors import UsageError
from device_client.logs import log_to_stderr
from device_client.memory import use_one_heap
from device_client.service import Agent
from device_client.systemd.notify import ServiceManager
from protocol.clock import SystemClock
from protocol.errors import FlagshipError


def add_to(verbs: "argparse._SubParsersAction[Any]", default_home: Path) -> None:
    """Make this command part of ``flagship-device``."""
    run = verbs.add_parser("run", help="run the agent; several --config run in one process")
    run.add_argument("--config", type=Path, action="append", metavar="FILE", help="device.toml, or the home it is in")
    run.set_defaults(run=_run, default_home=default_home)


def _run(options: argparse.Namespace) -> None:
    paths = options.config or [Path(os.environ.get("FLAGSHIP_DEVICE_HOME", options.default_home))]
    log_to_stderr()
    use_one_heap()
    agents = []
    for path in paths:
        home, settings = load(path)
        home.create()
        agents.append(Agent(home, settings, SystemClock()))
    if len({agent.settings.device.id for agent in agents}) != len(agents):
        raise UsageError("run: one device was named twice")
    asyncio.run(_until_told(agents))


async def _until_told(agents: Sequence[Agent]) -> None:
    """Run until SIGTERM or SIGINT; the first error of an agent ends all with its one sentence."""
    work = asyncio.ensure_future(_work(agents))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        return
    except BaseExceptionGroup as errors:
        first = _first(errors)
        if isinstance(first, FlagshipError | OSError):
            raise first from None
        raise


async def _work(agents: Sequence[Agent]) -> None:
    """The agents, and the word to whoever started this process; what ends them ends it."""
    manager = ServiceManager.of(os.environ)
    telling = asyncio.ensure_future(
        manager.keep_told(
            lambda: all(agent.runner.loaded.is_set() for agent in agents),
            lambda: "; ".join(agent.standing() for agent in agents),
        )
    )
    try:
        await run_agents(agents)
    finally:
        telling.cancel()
        await asyncio.wait([telling])


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
