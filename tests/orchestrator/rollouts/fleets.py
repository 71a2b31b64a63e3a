"""Devices and releases as planning sees them, for tests of the pure parts."""

import json
from typing import Any

from orchestrator.model.candidate import Candidate
from orchestrator.rollouts.members import Facts
from protocol.manifest import ReleaseInfo
from protocol.versions import compare


def release(version: str = "1.1.0", component: str = "app", **changes: Any) -> ReleaseInfo:
    """A release of the product ``gateway``."""
    values: dict[str, Any] = {
        "product": "gateway", "version": version, "component": component, "hardware": ["rev-a", "rev-b"], "counter": 1,
        "space_bytes": 1, "pieces": ["0" * 64], "chunk_count": 1,
    }  # fmt: skip
    return ReleaseInfo(**(values | changes))


def facts(info: ReleaseInfo | None = None, **changes: Any) -> Facts:
    """Nothing is held against anybody but what the release says."""
    return Facts(info=info or release(), compare=compare, **changes)


def candidate(name: str = "d1", **changes: Any) -> Candidate:
    """An enrolled gateway on rev-a that runs app 1.0.0."""
    values: dict[str, Any] = {
        "product": "gateway", "hardware": "rev-a", "state": "enrolled", "duplicate": 0, "online": 0, "silent": 0,
    }  # fmt: skip
    components, labels = changes.pop("components", {"app": "1.0.0"}), changes.pop("labels", {})
    texts = {"components_text": json.dumps(components), "labels_text": json.dumps(labels)}
    return Candidate(id=name, **(values | texts | changes))
