"""What a ceremony hands over is checked, kept and acted upon; a director key in use does not leave."""

from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Timestamp

from orchestrator.config import Settings
from orchestrator.delivery.trust_topics import trust_messages
from orchestrator.errors import ConflictError, NotAllowedError, OperationError
from orchestrator.publisher import steps
from orchestrator.publisher.changes import Change
from orchestrator.publisher.keys import create_signing_key
from orchestrator.publisher.workspace import Workspace
from orchestrator.releases.package_trust import director_keys, timestamp_keys
from orchestrator.releases.trust_updates import TrustUpdates
from orchestrator.signer.seam import AnnouncementRequest, Signed
from orchestrator.signer.signer import Signer
from orchestrator.storage import dirty, published, signatures
from orchestrator.storage.published import Publication
from protocol.topics import Kind, Topics
from protocol.trust.workflow import TrustStore
from tests.orchestrator.releases.conftest import FLEET, NOW, Depot, make_package

LATER = NOW + timedelta(hours=1)
DIRECTOR = f"director-{FLEET}"
DRAFT = {
    "rollout": "r-1",
    "expires": LATER + timedelta(hours=1),
    "release": {"path": "gateway/1.1.0/manifest", "length": 3, "sha256": "a" * 64, "counter": 0},
    "action": "install",
}


class Lab:
    """Updates of a depot, and a publisher who signs with all of his keys."""

    def __init__(self, depot: Depot) -> None:
        self.depot = depot
        self.woken = 0
        self.workspace = Workspace(depot.home.publisher)
        self.updates = TrustUpdates(
            fleet=FLEET,
            home=depot.home,
            db=depot.db,
            signer=depot.signer,
            now=lambda: LATER,
            wake=self._wake,
        )

    def _wake(self) -> None:
        self.woken += 1

    def ceremony(self, change: Change) -> dict[str, bytes]:
        """Sign a change into the working copy; returns all of it."""
        proposal = steps.propose(self.workspace, change, {}, "", NOW)
        steps.publish(self.workspace, [steps.sign_at_hand(proposal, self.workspace.load_signers())])
        return self.workspace.load_metadata()

    async def take_in(self, files: dict[str, bytes], *, stolen: bool = False, check_only: bool = False) -> None:
        """Hand it over."""
        await self.updates.take_in(files, stolen=stolen, check_only=check_only)

    async def announce(self) -> None:
        """One announcement is in force, signed by the signer's director key."""
        (signed,) = self.depot.signer.sign([AnnouncementRequest(DRAFT)])
        assert isinstance(signed, Signed)
        item = Publication(
            kind=Kind.ANNOUNCE,
            topic=f"ota/v1/{FLEET}/announce/r-1",
            digest="d",
            payload=signed.envelope,
            expires=LATER + timedelta(hours=1),
        )
        async with self.depot.db.begin() as conn:
            await published.record(conn, "main", [item])

    async def marks(self) -> set[tuple[Kind, str]]:
        """What is to be published again."""
        async with self.depot.db.read() as conn:
            return {(kind, key) for kind, key, _ in await dirty.take(conn, "main", tuple(Kind), 100)}

    @property
    def director(self) -> str:
        """The key that signs."""
        return self.depot.signer.director_keyid

    def second(self, role: str) -> Change:
        """Another key of an online role in the signer's folder, proposed."""
        name = role.partition("-")[0]
        key = create_signing_key(self.depot.home.signer / f"{name}-2.key").public_key
        return Change(add=((role, key),))


@pytest.fixture
def lab(depot: Depot) -> Lab:
    """With the first metadata."""
    return Lab(depot)


async def test_metadata_of_a_ceremony_is_kept_and_marked(lab: Lab, tmp_path: Path) -> None:
    """Devices follow what is then published; a check alone keeps nothing."""
    files = lab.ceremony(Change(renew={"root": None, "targets": None}))
    before = lab.depot.trust()
    await lab.take_in(files, check_only=True)
    assert (lab.depot.trust(), await lab.marks()) == (before, set())
    await lab.take_in(files)
    now = lab.depot.trust()
    assert {"2.root.json", "2.targets.json", "2.snapshot.json"} <= now.keys()
    assert await lab.marks() == {(Kind.TRUST_BUNDLE, "")}
    assert lab.woken == 1
    trusted = TrustStore(tmp_path / "device", now["1.root.json"]).refresh(now, LATER)
    assert (trusted.roles["root"].version, trusted.roles["targets"].version) == (2, 2)


async def test_a_new_director_key_takes_over_and_live_orders_are_signed_anew(lab: Lab) -> None:
    """The listed key with the highest number signs; a key that is not listed yet does not."""
    await lab.announce()
    old, change = lab.director, lab.second(DIRECTOR)
    await lab.updates.sign_anew()
    assert (lab.director, await lab.marks()) == (old, set())
    await lab.take_in(lab.ceremony(change))
    assert (lab.director, await lab.marks()) == (old, {(Kind.TRUST_BUNDLE, "")})  # no broker has the list yet
    await lab.updates.published()
    assert lab.director == change.add[0][1].keyid != old
    assert await lab.marks() == {(Kind.TRUST_BUNDLE, ""), (Kind.ANNOUNCE, "r-1")}
    reopened = Signer.open(lab.depot.home, Settings(fleet=FLEET))
    assert reopened.use_director(director_keys(lab.depot.home.trust, FLEET)) == lab.director


async def test_a_director_key_leaves_when_nothing_is_under_it(lab: Lab) -> None:
    """Refused with counts until all was signed anew; nothing is kept of what was refused."""
    await lab.announce()
    old = lab.director
    await lab.take_in(lab.ceremony(lab.second(DIRECTOR)))
    await lab.updates.published()
    files = lab.ceremony(Change(remove=((DIRECTOR, old),)))
    before = lab.depot.trust()
    with pytest.raises(ConflictError, match=f"director key {old[:12]}: 1 announcements and 0 offers under it"):
        await lab.take_in(files)
    assert lab.depot.trust() == before
    await lab.announce()
    async with lab.depot.db.read() as conn:
        assert await signatures.signed_by(conn, old, LATER) == {}
        assert await signatures.signed_by(conn, lab.director, LATER) == {Kind.ANNOUNCE: 1}
    await lab.take_in(files)
    assert director_keys(lab.depot.home.trust, FLEET) == [lab.director]


async def test_a_stolen_director_key_leaves_at_once(lab: Lab) -> None:
    """Orders under it are signed anew afterwards; a signer without any listed key is refused first."""
    await lab.announce()
    old, change = lab.director, lab.second(DIRECTOR)
    files = lab.ceremony(Change(add=change.add, remove=((DIRECTOR, old),)))
    hidden = lab.depot.home.signer / "director-2.key"
    hidden.rename(hidden.with_suffix(".away"))
    before = lab.depot.trust()
    with pytest.raises(ConflictError, match="none of its director keys is listed"):
        await lab.take_in(files, stolen=True)
    assert lab.depot.trust() == before
    hidden.with_suffix(".away").rename(hidden)
    await lab.take_in(files, stolen=True)
    await lab.updates.published()
    assert (lab.director, (Kind.ANNOUNCE, "r-1") in await lab.marks()) == (change.add[0][1].keyid, True)


async def test_a_new_timestamp_key_signs_from_then_on(lab: Lab) -> None:
    """Root lists it, the old one is gone, and devices find a timestamp that holds."""
    trust = lab.depot.trust()
    (old,) = timestamp_keys(trust)
    change = lab.second("timestamp")
    await lab.take_in(lab.ceremony(Change(add=change.add, remove=(("timestamp", old),))))
    timestamp = Metadata[Timestamp].from_bytes(lab.depot.trust()["timestamp.json"])
    assert set(timestamp.signatures) == {change.add[0][1].keyid} == set(timestamp_keys(lab.depot.trust()))


async def test_what_is_not_signed_or_older_is_refused(lab: Lab) -> None:
    """As a device would; what is published stays."""
    files = lab.ceremony(Change(renew={"targets": None}))
    before = lab.depot.trust()
    with pytest.raises(NotAllowedError, match="trust metadata: not signed by this fleet's release keys"):
        await lab.take_in({**files, "2.targets.json": files["2.targets.json"].replace(b"2027", b"2028", 1)})
    with pytest.raises(OperationError, match="at most"):
        await lab.take_in({f"{number}.x.json": b"" for number in range(2, 1000)})
    assert lab.depot.trust() == before
    first = {name: data for name, data in files.items() if name.startswith("1.")}
    await lab.take_in(files)
    await lab.take_in(first)  # an old copy brings nothing, and takes nothing back
    assert "2.targets.json" in lab.depot.trust()


async def test_a_release_after_many_root_rotations_is_taken_in(lab: Lab) -> None:
    """A package brings every root, and none of the older ones counts towards the bundle that devices get at once."""
    for _ in range(45):
        lab.ceremony(Change(renew={"root": None}))
    package = make_package(lab.depot.home.publisher, lab.depot.image, "1.1.0")
    await lab.depot.take(package)
    trust = lab.depot.trust()
    assert "46.root.json" in trust
    topics = {item.topic: len(item.payload) for item in trust_messages(lab.depot.home.trust, Topics(FLEET))}
    assert topics[f"ota/v1/{FLEET}/trust/bundle"] < 4096
    assert f"ota/v1/{FLEET}/trust/root/46" in topics
