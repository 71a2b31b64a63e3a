"""Verbs as tests order them: the order, and behind a halt or an abort the barrier, as the API does it."""

from collections.abc import Awaitable, Callable
from typing import Any

from orchestrator.model.rollout import Rollout
from orchestrator.rollouts.operations import Order, order
from orchestrator.storage.database import Database
from protocol.clock import Clock


async def pause(db: Database, clock: Clock, rollout: str, reason: str = "", **more: Any) -> Rollout:
    """Make no new offers."""
    return await order(db, clock, rollout, Order(verb="pause", reason=reason, **more))


async def resume(db: Database, clock: Clock, rollout: str, reason: str = "", **more: Any) -> Rollout:
    """Go on."""
    return await order(db, clock, rollout, Order(verb="resume", reason=reason, **more))


async def halt(
    db: Database, clock: Clock, rollout: str, reason: str = "", *, barrier: Callable[[], Awaitable[None]]
) -> Rollout:
    """Hold every device that is not installing."""
    halted = await order(db, clock, rollout, Order(verb="halt", reason=reason or "halted by an operator"))
    await barrier()
    return halted


async def abort(
    db: Database, clock: Clock, rollout: str, reason: str = "", *, barrier: Callable[[], Awaitable[None]]
) -> Rollout:
    """End it for good."""
    aborted = await order(db, clock, rollout, Order(verb="abort", reason=reason or "aborted by an operator"))
    await barrier()
    return aborted
