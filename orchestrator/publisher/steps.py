"""A ceremony's steps over the publisher's folder: propose, publish, renew, and what is due. Blocking.

Which metadata follows from a change is said in ``changes``; who must sign it in ``proposals``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Timestamp

from orchestrator.errors import NotFoundError, OperationError, UsageError, WaitingError
from orchestrator.expiry import Expiring, life_of
from orchestrator.publisher.changes import Change, apply
from orchestrator.publisher.holders import SHORT, Holder, Holders
from orchestrator.publisher.key_uris import CannotAskError
from orchestrator.publisher.proposals import Proposal, check_base, merge, sign_proposal
from orchestrator.publisher.signing import read_repository
from orchestrator.publisher.trust_roles import Contents, contents
from orchestrator.publisher.working_copy import check_fits
from orchestrator.publisher.workspace import Workspace

RENEW = "run 'flagship trust renew'"
DAILY = "the orchestrator renews it daily: see that 'flagship serve' runs"


def propose(workspace: Workspace, change: Change, news: Mapping[str, Holder], reason: str, now: datetime) -> Proposal:
    """Make a proposal from the working copy, which stays as it is.

    Args:
        news: Holders of keys that are added.

    Raises:
        OperationError: What stands in the way.
    """
    repository = read_repository(workspace.load_metadata())
    changed = apply(repository, change, now)
    holders = known_holders(workspace).with_keys(news)
    proposal = Proposal(repository.fleet, now.replace(microsecond=0), reason, repository, changed, holders)
    check_fits(f"proposal {proposal.id}", {**repository.files, **proposal.signed_files()})
    named = {*proposal.wanted(), *proposal.before().keys("timestamp").keys}
    for role in proposal.after().roles():
        named |= {*proposal.after().keys(role).keys, *proposal.before().keys(role).keys}
    return replace(proposal, holders=Holders(keys={k: h for k, h in holders.keys.items() if k in named}))


def find_key(contents_: Contents, role: str, text: str, holders: Holders) -> str:
    """The id of a role's key, named by the beginning of its id or by its holder.

    Raises:
        NotFoundError: No key of the role is meant.
        UsageError: Several are.
    """
    keys = contents_.keys(role).keys
    found = [keyid for keyid in keys if holders.name(keyid) == text] or [
        keyid for keyid in keys if len(text) >= 4 and keyid.startswith(text.lower())
    ]
    if not found:
        known = ", ".join(holders.title(keyid) for keyid in keys) or "none"
        raise NotFoundError(f"role {role}: no key {text[:80]}; it has {known}")
    if len(found) > 1:
        raise UsageError(f"role {role}: {text[:80]} means {len(found)} keys; name one by its key id")
    return found[0]


def publish(workspace: Workspace, proposals: Iterable[Proposal]) -> Proposal:
    """Write a proposal that is signed enough into the working copy.

    Raises:
        WaitingError: A threshold is not met; says who is missing.
        ConflictError: Somebody published meanwhile, or these are not copies of one proposal.
    """
    proposal = merge(proposals)
    with workspace.locked():
        check_signed(workspace, proposal)
        workspace.add_holders(proposal.holders.keys)
        workspace.store(proposal.signed_files())
    return proposal


def check_signed(workspace: Workspace, proposal: Proposal) -> None:
    """See that a proposal can be published from here.

    Raises:
        WaitingError: A threshold is not met; says who is missing.
        ConflictError: It is not based on the working copy.
    """
    check_base(proposal, workspace.load_metadata())
    missing = proposal.missing()
    if missing:
        raise WaitingError(f"proposal {proposal.id}: {'; '.join(missing)}; sign it with 'flagship trust sign'")


def renew(workspace: Workspace, within: timedelta, now: datetime) -> Proposal | None:
    """Propose anew what runs out within a time, signed with the keys at hand; None when nothing does.

    Raises:
        OperationError: The working copy is damaged, or a key does not sign.
    """
    found = contents(read_repository(workspace.load_metadata()))
    due = [role for role in found.roles() if (expires := found.expires(role)) and expires - now <= within]
    if not due:
        return None
    change = Change(renew=dict.fromkeys(due))
    return sign_at_hand(propose(workspace, change, {}, f"renew {', '.join(due)}", now), workspace.load_signers())


def sign_at_hand(proposal: Proposal, signers: Sequence[Signer]) -> Proposal:
    """Sign with keys at hand, as far as they are needed."""
    for signer in signers:
        keyid = signer.public_key.keyid
        if any(demand.missing and keyid in demand.keys.keys for demand in proposal.demands()):
            try:
                proposal = sign_proposal(proposal, signer, proposal.holders.title(keyid))
            except (NotFoundError, CannotAskError):
                continue  # elsewhere, or locked: its holder signs there
    return proposal


@dataclass(frozen=True, slots=True)
class RoleRow:
    """One role as ``trust show`` prints it."""

    role: str
    version: int | None
    threshold: int
    keys: tuple[dict[str, str], ...]
    expires: datetime | None
    due: datetime | None
    level: str


def show(workspace: Workspace, timestamp: bytes | None, now: datetime) -> list[RoleRow]:
    """Every role: keys, holders, threshold, expiry, and when it is due.

    Args:
        timestamp: What is published now, where the home is at hand.

    Raises:
        OperationError: The working copy is damaged.
    """
    repository = read_repository(workspace.load_metadata())
    found, holders = contents(repository), known_holders(workspace)
    ends = {thing.name: thing for thing in expiring(found, timestamp)}
    rows = []
    for role in found.roles():
        keys, end = found.keys(role), ends.get(role)
        rows.append(
            RoleRow(
                role=role,
                version=found.version(role),
                threshold=keys.threshold,
                keys=tuple({"keyid": keyid, "holder": holders.name(keyid)} for keyid in keys.keys),
                expires=end.expires if end else None,
                due=end.due() if end else None,
                level=end.level(now).value if end else "",
            )
        )
    return rows


def expiring(found: Contents, timestamp: bytes | None) -> list[Expiring]:
    """What runs out among the roles."""
    things = [
        Expiring("role", role, expires, life_of(role), RENEW)
        for role in found.roles()
        if (expires := found.expires(role)) is not None
    ]
    if timestamp is not None:
        try:
            signed: Any = Metadata[Timestamp].from_bytes(timestamp).signed
            things.append(Expiring("role", "timestamp", signed.expires, life_of("timestamp"), DAILY))
        except Exception as error:
            raise OperationError("timestamp.json: expected TUF metadata; restore the home's trust folder") from error
    return things


def key_rows(rows: Iterable[RoleRow]) -> list[dict[str, Any]]:
    """Rows of a table."""
    return [
        {
            "role": row.role,
            "version": row.version,
            "keys": f"{row.threshold} of {len(row.keys)}",
            "holders": ", ".join(f"{key['holder']} ({key['keyid'][:SHORT]})" for key in row.keys),
            "expires": f"{row.expires:%Y-%m-%d}" if row.expires else "",
            "due": f"{row.due:%Y-%m-%d}" if row.due else "",
            "state": row.level,
        }
        for row in rows
    ]


def known_holders(workspace: Workspace) -> Holders:
    """Those of ``holders.json``; a key file in the folder names itself where nobody is named."""
    found = workspace.load_holders()
    missing = {
        signer.public_key.keyid: Holder(holder=name)
        for name, signer in workspace.load_plain_signers().items()
        if signer.public_key.keyid not in found.keys
    }
    return found.with_keys(missing)
