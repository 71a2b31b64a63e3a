"""Claim certificates: made for a batch of devices, revoked. They open nothing but the way to a certificate."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from orchestrator.config import Home, Settings
from orchestrator.errors import ConflictError, NotFoundError, OperationError, UsageError
from orchestrator.fleet.authority import issue_device, load_authority
from orchestrator.fleet.enrolment import device_addresses, newest_root
from orchestrator.storage import claims, events
from orchestrator.storage.claims import Claim, Expected
from orchestrator.storage.database import Database
from protocol.clock import Clock
from protocol.enrolment import BrokerAddress, ClaimFolder

CLAIMS_CA = "claims-ca"
MAX_EXPECTED = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimPlan:
    """What a claim is made from.

    Attributes:
        csr: For the claim's key, which is made by the caller.
        any_product, any_hardware: What a serial that is not listed comes in as; both or none.
        automatic: Whether a request is answered without a person.
    """

    name: str
    csr: str
    expected: Sequence[Expected]
    any_product: str | None = None
    any_hardware: str | None = None
    automatic: bool
    per_minute: int
    life: timedelta


@dataclass(frozen=True, slots=True)
class MadeClaim:
    """What goes into a claim folder, the key apart."""

    folder: ClaimFolder
    certificate: str
    ca: str
    root: str


async def create(
    db: Database, home: Home, settings: Settings, clock: Clock, plan: ClaimPlan, *, actor: str = "operator"
) -> MadeClaim:
    """Make a claim and issue its certificate.

    Raises:
        UsageError: The plan makes no sense.
        ConflictError: The name, a serial or a device id is taken, or brokers do not listen for claims.
        OperationError: The CA or the root metadata is not there.
    """
    folder = _folder(settings, plan.name)
    _check(plan)
    certificate, serial, ca, root = await asyncio.to_thread(_issue, home, plan, clock)
    now = clock.now()
    made = Claim(
        name=plan.name,
        state=claims.OPEN,
        certificate_serial=serial,
        approval="auto" if plan.automatic else "manual",
        any_product=plan.any_product,
        any_hardware=plan.any_hardware,
        per_minute=plan.per_minute,
        created_at=now,
        expires=now + plan.life,
    )
    async with db.begin() as conn:
        if await claims.get(conn, plan.name) is not None:
            raise ConflictError(f"claim {plan.name}: is there already; give the new one another name")
        taken = await claims.taken(conn, plan.expected)
        if taken:
            raise ConflictError(f"claim {plan.name}: {taken[0]} is listed or enrolled already ({len(taken)} such)")
        await claims.insert_claim(conn, made, plan.expected)
        await events.add_order(
            conn, "claim_created", f"{plan.name}: {len(plan.expected)} serials, {made.approval}", now, actor=actor
        )
    return MadeClaim(folder, certificate, ca, root)


async def revoke(db: Database, clock: Clock, name: str, *, actor: str = "operator") -> Claim:
    """From now on no request under this claim is answered; what was issued under it stays.

    Raises:
        NotFoundError: There is no such claim.
    """
    async with db.begin() as conn:
        claim = await claims.get(conn, name)
        if claim is None:
            raise NotFoundError(f"claim {name}: there is none of that name; 'flagship device claim list' names them")
        if claim.state != claims.REVOKED:
            await claims.set_state(conn, name, claims.REVOKED)
            await events.add_order(conn, "claim_revoked", name, clock.now(), actor=actor)
    return claim


def _folder(settings: Settings, name: str) -> ClaimFolder:
    doors = [
        BrokerAddress(host=broker.advertised_host or broker.host, port=broker.enrol_port)
        for broker in settings.all_brokers
        if broker.enrol_port is not None
    ]
    if not doors:
        raise ConflictError(
            f"claim {name}: brokers do not listen for claims; set broker.enrol_port in config.toml and start serve anew"
        )
    return ClaimFolder(fleet=settings.fleet, claim=name, enrol=doors, brokers=device_addresses(settings))


def _check(plan: ClaimPlan) -> None:
    if not plan.expected and plan.any_product is None:
        raise UsageError(f"claim {plan.name}: nobody could come; list serials, or say --any")
    if (plan.any_product is None) != (plan.any_hardware is None):
        raise UsageError(f"claim {plan.name}: a serial that is not listed needs a product and a hardware")
    if len(plan.expected) > MAX_EXPECTED:
        raise UsageError(f"claim {plan.name}: at most {MAX_EXPECTED} serials, found {len(plan.expected)}")
    for what in ("serial", "device"):
        value, count = next(iter(Counter(getattr(one, what) for one in plan.expected).most_common(1)), ("", 0))
        if count > 1:
            raise UsageError(f"claim {plan.name}: {what} {value} is listed {count} times")


def _issue(home: Home, plan: ClaimPlan, clock: Clock) -> tuple[str, str, str, str]:
    authority = load_authority(home.ca, CLAIMS_CA)
    certificate, serial = issue_device(authority, plan.csr, plan.name, plan.life, clock.now())
    try:
        return certificate, serial, home.devices_ca.read_text(), newest_root(home)
    except OSError as error:
        raise OperationError(f"{error.filename}: cannot be read: {error.strerror}") from error
