"""One update on this device, and the file that survives a power cut. Saved before any effect of it runs."""

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from device_client.durable import sync_directory, write_durably
from protocol.directives import Action, Grant, Offer
from protocol.errors import ErrorCode
from protocol.reports import Reason
from protocol.states import OUTCOMES, Phase, State

MAX_JOURNAL_BYTES = 262_144


class Update(BaseModel):
    """Where one update stands. A value: every change makes a new one.

    Attributes:
        offer: The newest accepted offer, so that a restart needs nobody to repeat it.
        phase: What is waited for, while ``waiting``.
        reasons: The gates that are shut.
        action: What the rollout's announcement said last.
        granted: An activate grant answers ``nonce`` and has not run out.
        offline: It went on unasked, by ``offer.offline_until``: its own proof is enough to commit.
        waited_s: How long gates of this device kept it waiting in this phase.
        nonce: Of the report that is to be heard; new with each report that matters.
        heard: ``nonce`` was named by an offer.
        healthy: The health checks of the new version passed.
        stores: How often this was saved since installing began; bounded.
        installs: Attempts at installing.
        resumes: Restarts and reconnects of the transfer.
        restarts: Of the agent, in the place that it stands in; bounded where each could bring on the next.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: int = 1
    offer: Offer
    state: State = State.EVALUATING
    phase: Phase | None = None
    reasons: list[Reason] = []
    action: Action = Action.INSTALL
    component: str = ""
    version: str = ""
    from_version: str | None = None
    granted: bool = False
    offline: bool = False
    waited_s: Annotated[float, Field(ge=0)] = 0
    nonce: str = ""
    heard: bool = False
    healthy: bool = False
    code: ErrorCode | None = None
    detail: str = ""
    log: str = ""
    resumed: bool = False
    bytes_fetched: Annotated[int, Field(ge=0)] = 0
    stores: int = 0
    installs: int = 0
    resumes: int = 0
    restarts: int = 0
    boot_id: str = ""

    @property
    def is_over(self) -> bool:
        """Whether an outcome was reached; it is repeated until heard."""
        return self.state in OUTCOMES

    @property
    def may_activate(self) -> bool:
        """Whether the order of things allows installing and activating now."""
        return self.granted and self.action is Action.INSTALL and self.offer.grant is Grant.ACTIVATE

    @property
    def may_go_unasked(self) -> bool:
        """Whether the order of things allows what an activate grant allows, without one, while the gates agree."""
        unasked = self.offer.offline_until is not None and self.offer.grant is Grant.DOWNLOAD
        return unasked and self.action is Action.INSTALL


class Journal:
    """The file of the open update. Blocking: call in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def beside(self, name: str) -> Path:
        """Another file in its folder."""
        return self._path.with_name(name)

    def load(self) -> Update | None:
        """The open update, or None.

        A journal that cannot be read is moved aside: the device runs what it runs, and the retained offer is
        evaluated again.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            if len(data) > MAX_JOURNAL_BYTES:
                raise ValueError("journal: too large")
            return Update.model_validate(json.loads(data))
        except (ValueError, ValidationError, RecursionError):
            self._path.replace(self._path.with_suffix(".damaged"))
            return None

    def save(self, update: Update | None) -> None:
        """Replace the file: written, synced, renamed, directory synced. Returns when it is durable."""
        if update is None:
            self._path.unlink(missing_ok=True)
            sync_directory(self._path.parent)
        else:
            write_durably(self._path, update.model_dump_json().encode())
