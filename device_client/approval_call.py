"""Calls a person: runs the owner's program once for each rollout and phase that waits for an approval.

With ``on_deadline = "ask"`` it is run once more where gates have kept the update waiting past the deadline: the person
may clear the way, or decline; nothing is passed by.

    {"rollout": "r-1", "phase": "install", "version": "1.1.0", "component": "app", "release": "<sha256>",
     "detail": "a person at the device must agree: ...", "approve": ["flagship-device", "approve", ...]}

That is what it reads on its standard input. It raises a dialog, lights a lamp, sends a mail; the answer comes by the
socket or as a drop file, whenever it comes. After a restart of the agent it is called once more.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence

import structlog

from device_client.agent.journal import Update
from device_client.agent.runner import Runner
from device_client.agent.waiting import is_shut
from device_client.config import DeviceHome
from device_client.gate_keeper import Judged
from device_client.gates.gate import Wait
from device_client.programs import run_program

log = structlog.get_logger(__name__)

TICK_S = 0.5
TIMEOUT_S = 30.0
MAX_REMEMBERED = 64
MAX_DETAIL = 2000
Call = tuple[str, str, str, bool]
"""Rollout, sha256 of its release, phase: what an approval is bound to; and whether the deadline has passed."""


class ApprovalCall:
    """One device's."""

    def __init__(
        self,
        program: Sequence[str],
        home: DeviceHome,
        runner: Runner,
        judged: Mapping[str, Judged],
        late_s: float = 0,
    ) -> None:
        """Name the program; ``late_s`` is the deadline after which a person is asked, 0: none."""
        self._program = program
        self._late_s = late_s
        self._home = home
        self._runner = runner
        self._judged = judged
        self._called: dict[Call, None] = {}

    async def run(self) -> None:
        """Look, again and again, until cancelled; returns at once where no program is named."""
        while self._program:
            await self.tick()
            await asyncio.sleep(TICK_S)

    async def tick(self) -> None:
        """Call if a person is waited for and was not called yet. A program that fails is logged, and not run again."""
        update = self._runner.update
        if not self._program or update is None or update.phase is None:
            return
        is_late = 0 < self._late_s <= update.waited_s and is_shut(update)
        detail = self._late(update) if is_late else self._waited_for(update.offer.rollout, update.phase)
        call: Call = (update.offer.rollout, update.offer.release.sha256, update.phase.value, is_late)
        if detail is None or call in self._called:
            return
        self._called[call] = None
        while len(self._called) > MAX_REMEMBERED:
            del self._called[next(iter(self._called))]
        rollout, release, phase, _ = call
        words = ["flagship-device", "approve", rollout, "--phase", phase, "--home", str(self._home.path)]
        values = {"rollout": rollout, "phase": phase, "version": update.version, "component": update.component}
        given = values | {"release": release, "detail": detail, "approve": words}
        log.info("person called", rollout_id=rollout, phase=phase, program=self._program[0])
        ended = await run_program(
            self._program,
            TIMEOUT_S,
            {"FLAGSHIP_HOME": str(self._home.path)},
            what="notify",
            given=json.dumps(given).encode(),
        )
        if not ended.ok:
            log.warning("person not called", rollout_id=rollout, why=ended.detail, log=ended.log[-500:])

    def _late(self, update: Update) -> str:
        gates = "; ".join(f"{reason.gate}: {reason.detail or reason.code}" for reason in update.reasons)
        return f"it has waited {self._late_s:g} s for {gates}"[:MAX_DETAIL]

    def _waited_for(self, rollout: str, phase: str) -> str | None:
        """What the approval gate says where no answer is there yet; a deferral is one."""
        judged = self._judged.get(rollout)
        if judged is None or judged.phase != phase:
            return None
        verdicts = (answer.verdict for answer in judged.judgement.answers if answer.gate == "approval")
        return next((said.detail for said in verdicts if isinstance(said, Wait) and said.code == "approval"), None)
