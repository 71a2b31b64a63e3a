"""What a request for a directive becomes in the log of requests. Pure."""

import hashlib
from typing import Any

from orchestrator.signer.request_log import Entry
from orchestrator.signer.seam import AnnouncementRequest, Refusal, Request, Signed


def entry_of(request: Request, answer: Signed | Refusal, at: str) -> Entry:
    """The line of one request of a batch; ``at`` is when."""
    draft = request.draft
    entry: dict[str, str | int] = {"kind": _kind(request), "at": at}
    for key in ("rollout", "device", "grant", "action"):
        if key in draft:
            entry[key] = str(draft[key])
    entry["release"] = _release(draft.get("release"))
    match answer:
        case Signed():
            return {**entry, "epoch": answer.epoch, "seq": answer.seq, "digest": sha256_of(answer.envelope)}
        case Refusal():
            return {**entry, "refused": answer.code.value, "why": answer.why}


def _kind(request: Request) -> str:
    return "announcement" if isinstance(request, AnnouncementRequest) else "offer"


def _release(release: Any) -> str:  # noqa: ANN401 - a draft may hold anything
    if isinstance(release, dict):
        return str(release.get("sha256", ""))
    return str(getattr(release, "sha256", ""))


def sha256_of(data: bytes) -> str:
    """sha256 in hex."""
    return hashlib.sha256(data).hexdigest()
