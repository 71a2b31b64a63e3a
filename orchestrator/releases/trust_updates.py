"""What a key ceremony hands over: checked as a device would, kept, and everything signed anew that must be.

    check -> may the director keys leave? -> keep -> mark trust -> delivery publishes it -> switch keys -> mark the rest

A director key leaves only after no live directive is signed with it any more, except when it was stolen. The signer
switches when a broker has the bundle that lists the new key, so that no device meets the key before the list; then
every live announcement and offer is marked, and delivery signs it anew.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import structlog

from orchestrator.config import Home
from orchestrator.errors import ConflictError, SignerAwayError
from orchestrator.releases.importer import intake
from orchestrator.releases.package_trust import Timestamps, check_update, director_keys, store_trust
from orchestrator.storage import dirty, events, published, signatures
from orchestrator.storage.database import Database
from protocol.topics import Kind, Topics

log = structlog.get_logger(__name__)


class Directors(Timestamps, Protocol):
    """What an update needs of the signer."""

    def use_director(self, listed: Sequence[str], *, switch: bool = True) -> str:
        """Sign with the newest listed key from now on, if ``switch``; returns its id."""
        ...


@dataclass(slots=True, kw_only=True)
class TrustUpdates:
    """Takes ceremonies' metadata in."""

    fleet: str
    home: Home
    db: Database
    signer: Directors
    now: Callable[[], datetime]
    wake: Callable[[], None]
    active: str = ""
    """The director key under which everything live was marked last."""

    async def take_in(
        self, files: Mapping[str, bytes], *, stolen: bool, check_only: bool, actor: str = "operator"
    ) -> dict[str, int]:
        """Check metadata and, unless ``check_only``, put it into force.

        Returns:
            Versions by role.

        Raises:
            NotAllowedError: It is not signed as it must be.
            ConflictError: It is older than what is here, or a director key in use would leave.
        """
        async with intake(self.db):
            before = await asyncio.to_thread(director_keys, self.home.trust, self.fleet)
            checked = await asyncio.to_thread(check_update, files, self.home.trust, self.signer, self.now())
            listed = checked.trusted.director_keyset(self.fleet).split()
            if not stolen:
                await self.check_leaving([keyid for keyid in before if keyid not in listed])
            versions = {name: role.version for name, role in checked.trusted.roles.items()}
            if check_only:
                return versions
            # If the signer has none of the listed keys, nothing is kept.
            await asyncio.to_thread(self.signer.use_director, listed, switch=False)
            await asyncio.to_thread(store_trust, self.home.trust, checked.news)
            async with self.db.begin() as conn:
                await dirty.mark(conn, Kind.TRUST_BUNDLE, [""], self.now())
                text = ", ".join(f"{name} {version}" for name, version in versions.items())
                await events.add_order(conn, "trust_updated", f"trust metadata: {text}", self.now(), actor=actor)
        log.info("trust updated", **versions)
        self.wake()
        return versions

    async def published(self) -> None:
        """A broker has the newest bundle: let the key that it lists take over."""
        listed = await asyncio.to_thread(director_keys, self.home.trust, self.fleet)
        try:
            if await asyncio.to_thread(self.signer.use_director, listed) != self.active:
                await self.sign_anew()
        except (ConflictError, SignerAwayError) as error:  # all else goes on, so that a ceremony can list another key
            log.error("director key not chosen", why=str(error))

    async def check_leaving(self, keyids: Collection[str]) -> None:
        """See that nothing is in force under director keys.

        Raises:
            ConflictError: Something is; says how much.
        """
        for keyid in keyids:
            async with self.db.read() as conn:
                found = await signatures.signed_by(conn, keyid, self.now())
            if found:
                counts = f"{found.get(Kind.ANNOUNCE, 0)} announcements and {found.get(Kind.OFFER, 0)} offers"
                raise ConflictError(
                    f"director key {keyid[:12]}: {counts} under it have not expired; add the new key in a proposal of "
                    "its own first, publish it, and remove this one when all were signed anew (--stolen removes it now)"
                )

    async def sign_anew(self) -> None:
        """Choose the director key, and mark what is live under another; safe to repeat, and done at every start."""
        listed = await asyncio.to_thread(director_keys, self.home.trust, self.fleet)
        keyid = await asyncio.to_thread(self.signer.use_director, listed)
        self.active = keyid
        marked, after, topics = 0, 0, Topics(self.fleet)
        async with self.db.read() as conn:
            last = await published.highest_serial(conn)
        while after < last:
            async with self.db.begin() as conn:
                items, after = await signatures.signed_by_others(conn, keyid, self.now(), after=after, up_to=last)
                for item in items:
                    key = "/".join(topics.parse(item.topic).values.values())
                    await dirty.mark(conn, item.kind, [key], self.now())
            marked += len(items)
        if marked:
            log.info("directives are signed anew", director=keyid[:12], topics=marked)
        self.wake()
