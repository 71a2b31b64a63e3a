"""What is being signed, in words that a person can check. Pure."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from tuf.api.metadata import Root, Snapshot, TargetFile, Targets

from orchestrator.publisher.holders import SHORT, Holders
from orchestrator.publisher.proposals import Proposal
from orchestrator.publisher.trust_roles import Contents, delegated

NEVER = "-"


def describe(proposal: Proposal) -> list[str]:
    """Lines: what changes, then all keys as they will be, then who has signed."""
    before, after, holders = proposal.before(), proposal.after(), proposal.holders
    lines = [f"proposal {proposal.id} for fleet {proposal.fleet}, made {_day(proposal.made)}"]
    if proposal.reason:
        lines.append(f"  reason: {proposal.reason}")
    lines.append("changes")
    lines += list(_changes(before, after, holders))
    lines.append("keys as they will be (compare the digits with each holder)")
    for role in after.roles():
        keys = after.keys(role)
        lines.append(f"  {role}: {keys.threshold} of {len(keys.keys)}")
        lines += [f"      {keyid[:SHORT]}  {holders.name(keyid)}" for keyid in keys.keys]
    lines.append("signatures")
    lines += [f"  {demand.sentence(holders)}" for demand in proposal.demands()]
    return lines


def _changes(before: Contents, after: Contents, holders: Holders) -> Iterator[str]:
    for role in dict.fromkeys((*after.roles(), *before.roles())):
        body = [
            *_keys(role, before, after, holders),
            *_paths(role, before, after),
            *_listed(role, before, after),
            *_rest(role, before, after),
        ]
        old, new = before.version(role), after.version(role)
        if not body and old == new:
            continue
        yield f"  {role}" + ("" if new is None else f": version {old or 'none'} -> {new}")
        yield from body
        if old != new and new is not None:
            yield f"    expires {_day(before.expires(role))} -> {_day(after.expires(role))}"


def _keys(role: str, before: Contents, after: Contents, holders: Holders) -> Iterator[str]:
    old, new = before.keys(role), after.keys(role)
    for keyid, key in new.keys.items():
        if keyid not in old.keys:
            yield f"    + key {keyid[:SHORT]}  {holders.name(keyid)} ({key.scheme})"
    for keyid in old.keys:
        if keyid not in new.keys:
            yield f"    - key {keyid[:SHORT]}  {holders.name(keyid)}"
    if (old.threshold, len(old.keys)) != (new.threshold, len(new.keys)):
        yield f"    threshold {old.threshold} of {len(old.keys)} -> {new.threshold} of {len(new.keys)}"


def _paths(role: str, before: Contents, after: Contents) -> Iterator[str]:
    """What a delegated role may list; key carriers may list nothing."""
    old, new = delegated(before.targets).get(role), delegated(after.targets).get(role)
    if new and (old is None or old.paths != new.paths):
        yield f"    may list {', '.join(new.paths or ()) or 'nothing: names keys only'}"


def _listed(role: str, before: Contents, after: Contents) -> Iterator[str]:
    old, new = _targets(role, before), _targets(role, after)
    for path in sorted({*old, *new}):
        name = path.removesuffix("/manifest")
        if path not in old:
            yield f"    + lists {name}  sha256 {new[path].hashes.get('sha256', '')[:16]}"
        elif path not in new:
            yield f"    - no longer lists {name}: a device that has not installed it never will"
        elif old[path].to_dict() != new[path].to_dict():
            yield f"    ! changes {name}, which was signed before: refuse unless you know why"


def _targets(role: str, of: Contents) -> dict[str, TargetFile]:
    signed = of.signed(role)
    return signed.targets if isinstance(signed, Targets) else {}


def _rest(role: str, before: Contents, after: Contents) -> Iterator[str]:
    """Whatever else differs must not stay hidden from who signs."""
    old, new = before.signed(role), after.signed(role)
    if old is not None and new is not None and _unexplained(old) != _unexplained(new):
        yield "    ! changes something that this tool does not know: refuse unless you know why"


def _unexplained(signed: Root | Targets | Snapshot) -> dict[str, Any]:
    """A role's metadata without what the lines above tell."""
    rest = signed.to_dict()
    for name in ("version", "expires", "keys", "meta", "targets"):
        rest.pop(name, None)
    if isinstance(signed, Root):
        rest["roles"] = {name: role.unrecognized_fields for name, role in signed.roles.items()}
    if isinstance(signed, Targets):
        rest["delegations"] = {
            name: (role.terminating, role.path_hash_prefixes, role.unrecognized_fields)
            for name, role in delegated(signed).items()
            if role.terminating is not True or role.path_hash_prefixes or role.unrecognized_fields
        }
    return rest


def _day(instant: datetime | None) -> str:
    return NEVER if instant is None else f"{instant:%Y-%m-%d}"
