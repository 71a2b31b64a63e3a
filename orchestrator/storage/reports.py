"""Reports into rows, a batch in one transaction: order, devices, assignments, counts, marks, events.

A batch costs a fixed number of queries, whatever is in it. Order is (session, seq) per device; what does not exceed the
newest is a replay and is left out.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Update, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.assignment import Assignment, deciding_keys
from orchestrator.model.duplicates import Instance, Instances, heard
from orchestrator.model.reporting import apply_progress, apply_readiness, apply_state
from orchestrator.storage import assignments, dirty, newcomers, releases
from orchestrator.storage.exclusions import DUPLICATE, exclude_device
from orchestrator.storage.letting_go import let_go_of
from orchestrator.storage.tables import devices, events
from protocol.clock import rfc3339
from protocol.reports import Inventory, Presence, Progress, Readiness, Report, StateReport, Want
from protocol.topics import Kind

Content = Inventory | Readiness | StateReport | Presence | Progress | Want
_MOVED = ("session", "seq", "online", "presence_session", "last_seen", "heard_at", "silent")
_SAID = ("components", "labels", "stale_since", "refusals", "duplicate_since", "instances")
"""Of an inventory; mostly JSON, so they are read and written for inventories only."""
_UPDATE, _UPDATE_SAID = (
    update(devices).where(devices.c.id == bindparam("the_device")).values({name: bindparam(name) for name in names})
    for names in (_MOVED, (*_MOVED, *_SAID))
)
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Incoming:
    """One checked report; ``digest`` is of an outcome's payload."""

    device: str
    content: Content
    digest: str = ""


@dataclass(slots=True)
class Applied:
    """What a batch came to.

    Attributes:
        rejected: (reason, device) of what was left out.
        for_engine: Some count that the engine decides on changed: it should look.
        for_delivery: Some topic was marked.
        wanted: Chunks that devices miss and may have.
        wants_refused: How many others they named, by reason.
    """

    rejected: list[tuple[str, str]] = field(default_factory=list)
    for_engine: bool = False
    for_delivery: bool = False
    wanted: set[str] = field(default_factory=set)
    wants_refused: Counter[str] = field(default_factory=Counter)


async def apply_batch(conn: AsyncConnection, batch: Sequence[Incoming], now: datetime) -> Applied:
    """Write a batch, in the order in which it arrived."""
    said = any(isinstance(item.content, Inventory) for item in batch)
    work = _Work(now, await _load_devices(conn, {item.device for item in batch}, _SAID if said else ()), {})
    work.before = await assignments.get_many(conn, _keys(batch))
    work.after = dict(work.before)
    for item in batch:
        work.take(item)
    await work.write(conn)
    return work.applied


def _keys(batch: Sequence[Incoming]) -> set[tuple[str, str]]:
    return {
        (item.content.rollout, item.device)
        for item in batch
        if isinstance(item.content, Readiness | StateReport | Progress | Want)
    }


async def _load_devices(conn: AsyncConnection, ids: set[str], more: Sequence[str]) -> dict[str, dict[str, Any]]:
    columns = [devices.c[name] for name in ("id", "state", *_MOVED, *more)]
    found: dict[str, dict[str, Any]] = {}
    wanted = sorted(ids)
    for start in range(0, len(wanted), _BATCH):
        rows = await conn.execute(select(*columns).where(devices.c.id.in_(wanted[start : start + _BATCH])))
        found.update({row["id"]: dict(row) for row in rows.mappings()})
    return found


@dataclass
class _Work:
    now: datetime
    devices: dict[str, dict[str, Any]]
    before: dict[tuple[str, str], Assignment]
    after: dict[tuple[str, str], Assignment] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    said: set[str] = field(default_factory=set)
    shown: set[str] = field(default_factory=set)
    offers: set[str] = field(default_factory=set)
    wants: dict[str, set[str]] = field(default_factory=dict)  # rollout -> chunks
    duplicates: list[str] = field(default_factory=list)
    newcomers: list[str] = field(default_factory=list)
    fleet: bool = False
    happened: list[dict[str, Any]] = field(default_factory=list)
    applied: Applied = field(default_factory=Applied)

    def take(self, item: Incoming) -> None:
        """Apply one report to the rows in memory."""
        device = self.devices.get(item.device)
        if device is None or device["state"] != "enrolled":
            self._reject("not_enrolled", item)
            return
        content = item.content
        if isinstance(content, Inventory):
            self._instance(device, content)
        if isinstance(content, Report) and not self._in_order(device, content):
            self._reject("E_REPLAY", item)
            return
        match content:
            case Presence():
                self._presence(device, content)
            case Inventory():
                self._inventory(device, content)
            case Want():
                self._want(item.device, content)
            case Readiness() | StateReport() | Progress():
                self._update(item, content)

    async def write(self, conn: AsyncConnection) -> None:
        """Write what changed."""
        await self._write_devices(conn, _UPDATE, self.changed - self.said, _MOVED)
        await self._write_devices(conn, _UPDATE_SAID, self.said, (*_MOVED, *_SAID))
        moved = [(self.before[key], row) for key, row in self.after.items() if row != self.before[key]]
        await assignments.save_all(conn, moved)
        freed = await let_go_of(conn, moved)
        moved += freed
        await newcomers.note(conn, self.newcomers)
        for device in self.duplicates:
            await exclude_device(conn, device, DUPLICATE, self.now)
        touched = {row.device for _, row in moved} | self.shown
        if self.wants:  # a device may name what does not exist, or is another release's, without end
            self.applied.wanted = await releases.chunks_of_rollouts(conn, self.wants)
            foreign = len({cid for cids in self.wants.values() for cid in cids}) - len(self.applied.wanted)
            self.applied.wants_refused["not_of_release"] += foreign
        marks = {
            Kind.OFFER: self.offers,
            Kind.STATUS_DEVICE: touched,
            Kind.STATUS_ROLLOUT: {row.rollout for _, row in moved},
            Kind.STATUS_FLEET: {""} if self.fleet else (),
        }
        await dirty.mark_all(conn, marks, self.now)
        if self.happened:
            await conn.execute(insert(events), self.happened)
        decides = any(deciding_keys(before) != deciding_keys(row) for before, row in moved)
        self.applied.for_engine = decides or bool(self.duplicates) or bool(self.newcomers)
        self.applied.for_delivery = bool(self.offers or self.duplicates)

    async def _write_devices(
        self, conn: AsyncConnection, statement: Update, ids: set[str], names: Sequence[str]
    ) -> None:
        rows = [{**{name: self.devices[d][name] for name in names}, "the_device": d} for d in sorted(ids)]
        if rows:
            await conn.execute(statement, rows)

    def _in_order(self, device: dict[str, Any], report: Report) -> bool:
        if report.order <= (device["session"], device["seq"]):
            return False
        device["session"], device["seq"] = report.order
        device["last_seen"] = device["heard_at"] = self.now
        if device["silent"]:
            device["silent"] = False
            self._show(device)
        self.changed.add(device["id"])
        return True

    def _instance(self, device: dict[str, Any], report: Inventory) -> None:
        """Before the order is looked at: of two devices, one always seems to say what is old."""
        if report.instance is None:
            return
        before = Instances.from_json(device["instances"])
        spoke = Instance(report.instance, report.boot or "", report.session, report.seq)
        after = heard(before, spoke, self.now)
        if after == before:
            return
        device["instances"] = after.to_json()
        self.said.add(device["id"])
        if after.are_two and device["duplicate_since"] is None:
            device["duplicate_since"] = self.now
            self.duplicates.append(device["id"])
            self._show(device)
            where = "on two machines" if after.are_on_two_machines else "on one machine"
            text = (
                f"{device['id']}: two live devices under one id, {where}; it is offered nothing until this is cleared"
            )
            self._happened("device_duplicate", device["id"], text)

    def _show(self, device: dict[str, Any]) -> None:
        self.shown.add(device["id"])
        self.fleet = True

    def _presence(self, device: dict[str, Any], presence: Presence) -> None:
        """A will ends its own session only; a hint never takes the place of a newer one."""
        if presence.session < device["presence_session"]:
            return
        if device["online"] != presence.online or device["presence_session"] != presence.session:
            device |= {"online": presence.online, "presence_session": presence.session}
            self.shown.add(device["id"])
            device["last_seen"] = self.now
            self.changed.add(device["id"])
            self.fleet = True

    def _inventory(self, device: dict[str, Any], report: Inventory) -> None:
        refusals = [refusal.model_dump(mode="json") for refusal in report.refusals or ()]
        news: dict[str, Any] = {
            "components": dict(report.components),
            "labels": dict(report.labels),
            "stale_since": report.stale_since,
            "refusals": refusals,
        }
        self._note_refusals(device, refusals)
        if any(device[name] != news[name] for name in ("components", "labels")):
            self.newcomers.append(device["id"])
        if any(device[name] != value for name, value in news.items()):
            device |= news
            self.said.add(device["id"])
            self.shown.add(device["id"])
            self.fleet = True

    def _note_refusals(self, device: dict[str, Any], refusals: list[dict[str, Any]]) -> None:
        """Each code that a device had not refused before is an event."""
        known = {refusal["code"] for refusal in device["refusals"]}
        for refusal in refusals:
            if refusal["code"] not in known:
                text = f"{device['id']}: refused what came: {refusal['code']} {refusal['detail']}"
                self._happened("device_refused", device["id"], text)

    def _want(self, device: str, want: Want) -> None:
        row = self.after.get((want.rollout, device))
        if row is None or not row.is_open(self.now):
            self.applied.wants_refused["no_open_offer"] += len(want.cids)
            return
        self.wants.setdefault(want.rollout, set()).update(want.cids)

    def _update(self, item: Incoming, content: Readiness | StateReport | Progress) -> None:
        key = (content.rollout, item.device)
        row = self.after.get(key)
        if row is None:
            if not isinstance(content, Readiness):  # announcements reach devices that take no part: they may answer
                self._reject("no_assignment", item)
            return
        match content:
            case Readiness():
                effect = apply_readiness(row, content, self.now)
            case StateReport():
                effect = apply_state(row, content, item.digest, self.now)
                if content.is_outcome and effect.after.outcome_digest and row.outcome_digest is None:
                    self._outcome(content)
            case Progress():
                self.after[key] = apply_progress(row, content, self.now)
                return
        self.after[key] = effect.after
        if effect.hear:
            self.offers.add(dirty.offer_key(item.device, content.rollout))

    def _outcome(self, report: StateReport) -> None:
        why = f": {report.code} {report.detail}" if report.code else f": {report.detail}" if report.detail else ""
        if report.offline_until is not None:
            why += f"; it acted unasked, by a medium that let it until {rfc3339(report.offline_until)}"
        self._happened(f"device_{report.state}", report.device, f"{report.device}: {report.state}{why}", report.rollout)

    def _happened(self, kind: str, device: str, text: str, rollout: str = "") -> None:
        self.happened.append(
            {
                "at": self.now,
                "kind": kind,
                "actor": "device",
                "rollout": rollout,
                "device": device,
                "text": text[:1000],
                "data": {},
            }
        )

    def _reject(self, reason: str, item: Incoming) -> None:
        self.applied.rejected.append((reason, item.device))
