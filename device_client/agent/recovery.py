"""Where an update goes on after a restart, of the agent or of the device. Pure."""

from device_client.agent.effects import Effect
from device_client.agent.journal import Update
from device_client.agent.machine import IllegalEvent, Step, arrive
from device_client.agent.machine_table import ENTER, ROLLING_BACK, VERIFYING, Place
from protocol.errors import ErrorCode
from protocol.states import Phase, State

MAX_INSTALLS = 2
MAX_RESTARTS = 5
"""In one place: a version that takes the agent, or the device, down with it must not do so for ever."""


def recover(update: Update, boot_id: str, nonce: str, *, runs_new_version: bool) -> Step:
    """Where to go on after a restart: a function of what was saved, the boot and what runs.

    Args:
        update: As it was saved last.
        boot_id: Of this boot; a grant does not survive a reboot, its clock started anew.
        nonce: A fresh one: what is on trial must be answered anew, what was heard before may have been another version.
        runs_new_version: Whether the offered release is the active one.
    """
    # A grant ends with the process that received it, whose clock its deadline stands on.
    counted = {"resumes": update.resumes + 1, "restarts": update.restarts + 1}
    update = update.model_copy(update={"boot_id": boot_id, "granted": False, **counted})
    if update.is_over:
        return Step(update, (Effect.CLEAN_UP, Effect.REPORT_STATE))
    place: Place = (update.state, update.phase)
    if update.restarts > MAX_RESTARTS and (ended := _gives_up(update, nonce)) is not None:
        return ended
    match update.state:
        case State.EVALUATING | State.INSTALLED | State.COMMITTING | State.ROLLING_BACK | State.ACTIVATING:
            return Step(update, ENTER[place])
        case State.WAITING | State.FETCHED:
            return Step(update.model_copy(update={"nonce": ""}), (Effect.JUDGE_GATES,))  # said anew, heard or not
        case State.DOWNLOADING:
            waiting = update.model_copy(
                update={"state": State.WAITING, "phase": Phase.DOWNLOAD, "resumed": True, "reasons": []}
            )
            return Step(waiting, (Effect.JUDGE_GATES,))
        case State.INSTALLING:
            if update.installs < MAX_INSTALLS:
                return Step(update.model_copy(update={"installs": update.installs + 1}), (Effect.INSTALL,))
            return arrive(update, ROLLING_BACK, {"code": ErrorCode.INSTALL, "detail": "installing was cut off twice"})
        case State.VERIFYING:
            if runs_new_version:
                unproven = {"healthy": False, "heard": False, "nonce": nonce}
                return Step(update.model_copy(update=unproven), ENTER[VERIFYING])
            return arrive(
                update, ROLLING_BACK, {"code": ErrorCode.HEALTH, "detail": "the former version was found running"}
            )
        case _:
            raise IllegalEvent(f"a journal cannot stand in {update.state}")


def _gives_up(update: Update, nonce: str) -> Step | None:
    """Where restarts could go on for ever: back to the former version, or, if that is what they hinder, the end.

    A commit is repeated without a bound: from it there is no way back.
    """
    why = f"{MAX_RESTARTS} restarts while {update.state.value.replace('_', ' ')}"
    match update.state:
        case State.ACTIVATING:
            return arrive(update, ROLLING_BACK, {"code": ErrorCode.INSTALL, "detail": why}, nonce)
        case State.VERIFYING:
            return arrive(update, ROLLING_BACK, {"code": ErrorCode.HEALTH, "detail": why}, nonce)
        case State.ROLLING_BACK:
            detail = f"rolling back failed: {why}; before it: {update.detail}"[:500]
            return arrive(update, (State.INCONSISTENT, None), {"detail": detail}, nonce)
        case _:
            return None
